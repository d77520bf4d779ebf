"""The solving of a run's jobs, in whatever process its models are, and the record that a job leaves.

All records have the same fields, of a problem that cannot be used as well. A field may be null in every record of a
file's beginning, so that a reader who guesses types from it has to be told them: they are `FEATURES`.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from datasets import Features, List, Value

from eval.jobs import Job, jobs_of
from vlprm.backbones import placement
from vlprm.cluster import Work
from vlprm.engines import Engine
from vlprm.engines.choose import open_engine
from vlprm.engines.local import LocalEngine
from vlprm.problems import ProblemError
from vlprm.prompts import critique_question
from vlprm.reward_model import load_reward_model
from vlprm.schema import SCHEMA_VERSION, Problem, to_json
from vlprm.scorers import Scorer, open_scorer
from vlprm.search import METHODS, Cost, Critic, Found, ScoredSolution, SearchConfig, solve

if TYPE_CHECKING:
    from eval.run import RunConfig

Record = dict[str, Any]


def _named(kind: str, *names: str) -> dict[str, Value]:
    return {name: Value(kind) for name in names}


_REGION = {**_named("float64", "x0", "y0", "x1", "y1"), **_named("int64", "image")}
_STEP = {**_named("string", "kind", "text"), "region": _REGION, **_named("string", "told")}
_SOLUTION = {**_named("int64", "schema"), **_named("string", "problem_id"), "steps": List(_STEP),
             **_named("string", "answer", "stop"), **_named("int64", "tokens")}  # fmt: skip
_SCORE = _named("float64", "correct", "perception", "reasoning", "surprise")
_CANDIDATE = {**_named("string", "answer"), **_named("bool", "right"), "solution": _SOLUTION, "scores": List(_SCORE)}
_COST = {f.name: Value("float64" if f.name == "seconds" else "int64") for f in dataclasses.fields(Cost)}

FEATURES = Features(
    _named("string", "key") | _named("int64", "at", "schema")
    | _named("string", "benchmark", "problem", "method", "failure", "said", "question_type", "question")
    | _named("int64", "images") | _named("string", "gold")
    | {"candidates": List(_CANDIDATE), "shares": List(Value("float64")), "cost": _COST}
)  # fmt: skip


@dataclass(frozen=True)
class Solver:
    """The models of a run, and what it searches with."""

    policy: Engine
    scorer: Scorer | None
    critic: Critic | None
    search: SearchConfig

    async def record(self, job: Job) -> Record:
        """A problem that cannot be used has a record too, which says why."""
        try:
            problem = job.asked.problem(job.problem_id)
            found = await solve(job.method, problem, self.policy, self.scorer, self.search, self.critic)
        except ProblemError as error:
            return failure_record(job, error)
        return found_record(job, problem, found, self.search)


@asynccontextmanager
async def opened(config: RunConfig) -> AsyncIterator[Work[Job, Record]]:
    """What solves units of jobs side by side with the models of the config, for one event loop."""
    async with AsyncExitStack() as stack:
        placed = config.device, config.dtype
        policy = await stack.enter_async_context(open_engine(config.policy, *placed, config.server))
        scorer, critic = None, None
        if config.reward_model:
            scorer = await stack.enter_async_context(open_scorer(config.reward_model, *placed, config.scores))
        if config.critic:
            engine = LocalEngine(load_reward_model(config.critic, *placement(*placed)))
            critic = Critic(engine, critique_question(engine.checkpoint.profile.prompt_template))
        solver = Solver(policy, scorer, critic, config.search)

        async def solved(unit: Sequence[Job]) -> list[Record]:
            return list(await asyncio.gather(*map(solver.record, unit)))

        yield solved


@asynccontextmanager
async def opened_anew(config: RunConfig) -> AsyncIterator[Work[str, Record]]:
    """The same for keys of jobs, in a process that was given no more than the config."""
    jobs = {job.key: job for job in jobs_of(config)}
    async with opened(config) as solved:
        yield lambda keys: solved([jobs[key] for key in keys])


def found_record(job: Job, problem: Problem, found: Found, search: SearchConfig) -> Record:
    """The candidates as the benchmark's rule reads them, and the choice among its answers."""
    readings = [job.asked.read(problem, scored.solution) for scored in found.pool]
    pool = [dataclasses.replace(s.candidate, answer=r.answer) for s, r in zip(found.pool, readings, strict=True)]
    shares = METHODS[job.method].choose(pool, search.aggregation) if pool else []
    return {
        **_head(job),
        "question_type": str(problem.meta.get("question_type", "")),
        "question": problem.question,
        "images": len(problem.images),
        "gold": problem.answer,
        "candidates": [
            {"answer": r.answer, "right": None if r.answer is None else r.correct, **_stored(s)}
            for s, r in zip(found.pool, readings, strict=True)
        ],
        "shares": shares,
        "cost": asdict(found.cost),
    }


def failure_record(job: Job, error: ProblemError) -> Record:
    nothing = {"question_type": "", "question": "", "images": 0, "gold": None, "candidates": [], "shares": []}
    return {**_head(job), "failure": error.failure, "said": str(error), **nothing, "cost": asdict(Cost())}


def _head(job: Job) -> Record:
    return {"key": job.key, "at": job.at, "schema": SCHEMA_VERSION, "benchmark": job.asked.name,
            "problem": job.problem_id, "method": job.record, "failure": "", "said": ""}  # fmt: skip


def _stored(scored: ScoredSolution) -> Record:
    return {"solution": to_json(scored.solution), "scores": [score and asdict(score) for score in scored.scores]}
