"""The solving of a run's jobs, in whatever process its models are, and the record that a job leaves.

All records have the same fields, of a problem that cannot be used as well. A field may be null in every record of a
file's beginning, so that a reader who guesses types from it has to be told them: they are `FEATURES`.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from datasets import Features, List, Value

from eval.jobs import Job, jobs_of
from eval.models import Models, open_models
from vlprm.cluster import Work
from vlprm.problems import ProblemError
from vlprm.schema import SCHEMA_VERSION, Problem, to_json
from vlprm.search import Cost, Found, ScoredSolution, SearchConfig, method_named, solve

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
_CANDIDATE = {**_named("string", "answer"), **_named("bool", "right"), "solution": _SOLUTION, "scores": List(_SCORE),
              **_named("int64", "read")}
_COST = {f.name: Value("float64" if f.name == "seconds" else "int64") for f in dataclasses.fields(Cost)}

FEATURES = Features(
    _named("string", "key") | _named("int64", "at", "schema")
    | _named("string", "benchmark", "problem", "method", "failure", "said", "question_type", "question")
    | _named("int64", "images") | _named("string", "gold")
    | {"candidates": List(_CANDIDATE), "shares": List(Value("float64")), "cost": _COST}
)  # fmt: skip


@asynccontextmanager
async def opened(config: RunConfig) -> AsyncIterator[Work[Job, Record]]:
    """What solves units of jobs side by side with the models of the config, for one event loop."""
    async with open_models(config) as models:

        async def solved(unit: Sequence[Job]) -> list[Record]:
            return list(await asyncio.gather(*(record_of(job, models, config.search) for job in unit)))

        yield solved


@asynccontextmanager
async def opened_anew(config: RunConfig) -> AsyncIterator[Work[str, Record]]:
    """The same for keys of jobs, in a process that was given no more than the config."""
    jobs = {job.key: job for job in jobs_of(config)}
    async with opened(config) as solved:
        yield lambda keys: solved([jobs[key] for key in keys])


async def record_of(job: Job, models: Models, search: SearchConfig) -> Record:
    """A problem that cannot be used has a record too, which says why."""
    try:
        problem = job.asked.problem(job.problem_id)
        found = await solve(job.method, problem, models.policy, models.scorer, search, models.critic)
    except ProblemError as error:
        return failure_record(job, error)
    return found_record(job, problem, found, search)


def found_record(job: Job, problem: Problem, found: Found, search: SearchConfig) -> Record:
    """The candidates as the benchmark's rule reads them, and the choice among its answers."""
    readings = [job.asked.read(problem, scored.solution) for scored in found.pool]
    pool = [dataclasses.replace(s.candidate, answer=r.answer) for s, r in zip(found.pool, readings, strict=True)]
    shares = method_named(job.method).choose(pool, search.aggregation) if pool else []
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
    scores = [score and asdict(score) for score in scored.scores]
    return {"solution": to_json(scored.solution), "scores": scores, "read": scored.read}
