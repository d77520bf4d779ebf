"""Worker of eval.run: solves jobs and builds their records.

All records have the same fields, also those of failed problems. `FEATURES` declares their types, for readers that would
infer them from the first records of a file, where a field may always be null.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import yaml
from datasets import Features, List, Value

from eval.runs.config import RunConfig
from eval.runs.jobs import Job, jobs_of
from eval.runs.models import Models, open_models
from vlprm.errors import ProblemError, UserError
from vlprm.policy import all_answers
from vlprm.runs.folder import CONFIG
from vlprm.runs.pools import POOL, StoredPool
from vlprm.runs.ray import Work
from vlprm.schema import SCHEMA_VERSION, Problem, Step, StepScore, to_json
from vlprm.scoring import Scorer
from vlprm.scoring.local import WholeSolutionScorer
from vlprm.scoring.open import open_scorer
from vlprm.search import Cost, ScoredSolution, SearchConfig, SearchResult, method_named, solve
from vlprm.search.select import voters

Record = dict[str, Any]
SAMPLING = ("temperature", "max_tokens", "seed")  # settings of a search that decide which candidates are sampled


def _named(kind: str, *names: str) -> dict[str, Value]:
    return {name: Value(kind) for name in names}


_REGION = {**_named("float64", "x0", "y0", "x1", "y1"), **_named("int64", "image")}
_STEP = {**_named("string", "kind", "text"), "region": _REGION, **_named("string", "told")}
_SOLUTION = {**_named("int64", "schema"), **_named("string", "problem_id"), "steps": List(_STEP),
             **_named("string", "answer", "stop"), **_named("int64", "tokens", "read")}  # fmt: skip
_SCORE = _named("float64", *(f.name for f in dataclasses.fields(StepScore)))
_TRUTH = {**_named("bool", "correct"), **_named("string", "error_kind")}
_CANDIDATE = {
    **_named("string", "answer", "vote"),
    **_named("bool", "right"),
    "solution": _SOLUTION,
    "scores": List(_SCORE),
    **_named("int64", "read"),
    **_named("float64", "whole"),
    "truth": List(_TRUTH),
}
_COST = {f.name: Value("float64" if f.name == "seconds" else "int64") for f in dataclasses.fields(Cost)}

FEATURES = Features(
    _named("string", "key") | _named("int64", "at", "schema")
    | _named("string", "benchmark", "problem", "method", "failure", "said", "question_type", "question")
    | _named("int64", "images") | _named("string", "gold")
    | {"candidates": List(_CANDIDATE), "shares": List(Value("float64")), "cost": _COST}
)  # fmt: skip


@asynccontextmanager
async def open_worker(config: RunConfig) -> AsyncIterator[Work[Job, Record]]:
    """A function that solves the jobs of a unit concurrently, with the config's models. For one event loop."""
    reward_models = [config.reward_model] if config.reward_model else []
    if config.pool is not None:
        pool = open_pool(config)
        async with open_scorer(reward_models, config.scorer) as scorer:
            one_step = _whole(scorer) if config.whole else None
            yield lambda unit: all_answers(rescored(job, pool, scorer, one_step, config.search) for job in unit)
        return
    async with open_models(config.policy, reward_models, config.scorer, config.critic) as models:
        whole = _whole(models.scorer) if config.whole else None

        async def solved(unit: Sequence[Job]) -> list[Record]:
            return await all_answers(record_of(job, models, whole, config.search) for job in unit)

        yield solved


def _whole(scorer: Scorer | None) -> WholeSolutionScorer:
    assert scorer is not None
    return WholeSolutionScorer(scorer)


@asynccontextmanager
async def open_worker_anew(config: RunConfig) -> AsyncIterator[Work[str, Record]]:
    """The same for job keys, in a process that knows only the config."""
    jobs = {job.key: job for job in jobs_of(config)}
    async with open_worker(config) as solved:
        yield lambda keys: solved([jobs[key] for key in keys])


async def record_of(job: Job, models: Models, whole: Scorer | None, search: SearchConfig) -> Record:
    """Solve a job and return its record; for an unusable problem, a record with the cause."""
    try:
        problem = job.problem_set.problem(job.problem_id)
        found = await solve(job.method, problem, models.policy, models.scorer, search, models.critic)
    except ProblemError as error:
        return failure_record(job, error)
    rewards = await whole_rewards(problem, found, whole) if whole is not None and job.record == POOL else None
    return found_record(job, problem, found, search, rewards)


def open_pool(config: RunConfig) -> StoredPool:
    """The pool that a config names. UserError if it has another checksum, or was sampled by another policy or with
    other settings than the config states."""
    assert config.pool is not None
    pool = StoredPool(config.pool)
    if config.checksum not in ("", pool.checksum):
        raise UserError(
            f"{config.pool} has the checksum {pool.checksum}, not {config.checksum}; give the pool of that checksum"
        )
    sampled = yaml.safe_load((config.pool / CONFIG).read_text())
    stated = {"policy": config.policy.checkpoint, **{name: getattr(config.search, name) for name in SAMPLING}}
    true = {"policy": sampled["policy"]["checkpoint"], **{name: sampled["search"][name] for name in SAMPLING}}
    for name in stated:
        if stated[name] != true[name]:
            flag = name if name == "policy" else f"search.{name}"
            raise UserError(f"{config.pool} was sampled with {flag} {true[name]}, not {stated[name]}; set {flag} to it")
    return pool


async def rescored(job: Job, pool: StoredPool, scorer: Scorer, whole: Scorer | None, search: SearchConfig) -> Record:
    """The record of a problem whose candidates are those of a stored pool. It has no seconds: the policy's were spent
    in another run."""
    try:
        problem = job.problem_set.problem(job.problem_id)
        sampled = pool.first(job.problem_set.name, job.problem_id, search.n)
        scores = await scorer.score(problem, [solution.steps for solution in sampled.solutions])
    except ProblemError as error:
        return failure_record(job, error)
    parts = zip(sampled.solutions, scores.steps, scores.read, strict=True)
    scored = tuple(ScoredSolution(solution, tuple(steps), read) for solution, steps, read in parts)
    cost = Cost(
        sum(solution.tokens for solution in sampled.solutions), sampled.read, scorer_read=scores.tokens, scorer_calls=1
    )
    found = SearchResult(problem.id, job.method, scored, [], cost)
    rewards = await whole_rewards(problem, found, whole) if whole is not None else None
    record = found_record(job, problem, found, search, rewards)
    return {**record, "cost": {**record["cost"], "seconds": None}}


async def whole_rewards(problem: Problem, found: SearchResult, scorer: Scorer) -> list[float | None]:
    """The reward of each candidate, scored as a single step; None if it could not be scored."""
    scored = await scorer.score(problem, [candidate.solution.steps for candidate in found.pool])
    return [scores[-1].correct if scores and scores[-1] is not None else None for scores in scored.steps]


def found_record(
    job: Job, problem: Problem, found: SearchResult, search: SearchConfig, whole: Sequence[float | None] | None = None
) -> Record:
    """The record of a solved problem, with answers as the benchmark's rule extracts them. `vote`: the answer that a
    candidate counts for in a vote, since equal answers can be written in several ways."""
    readings = [job.problem_set.read(problem, scored.solution) for scored in found.pool]
    read = [dataclasses.replace(s.candidate, answer=r.answer) for s, r in zip(found.pool, readings, strict=True)]
    pool = voters(problem, read)
    shares = method_named(job.method).choose(pool, search.aggregation) if pool else []
    candidates = [
        {
            "answer": reading.answer,
            "vote": voter.answer,
            "right": None if reading.answer is None else reading.correct,
            "solution": to_json(scored.solution),
            "scores": [score and asdict(score) for score in scored.scores],
            "read": scored.read,
            "whole": reward,
            "truth": truth,
        }
        for scored, reading, voter, reward, truth in zip(
            found.pool, readings, pool, whole or [None] * len(pool), truths(job, problem, found), strict=True
        )
    ]
    return {
        **_head(job),
        "question_type": str(problem.meta.get("question_type", "")),
        "question": problem.question,
        "images": len(problem.images),
        "gold": problem.answer,
        "candidates": candidates,
        "shares": shares,
        "cost": asdict(found.cost),
    }


def truths(job: Job, problem: Problem, found: SearchResult) -> list[list[Record | None] | None]:
    """Ground truth of each candidate's steps, or None if the task has none. Duplicate solutions are checked only
    once."""
    if job.problem_set.truth is None:
        return [None] * len(found.pool)
    known: dict[tuple[Step, ...], list[Record | None]] = {}
    for steps in {scored.solution.steps for scored in found.pool}:
        verdicts = job.problem_set.truth(problem, steps)
        known[steps] = [{"correct": v.correct, "error_kind": v.error_kind} if v else None for v in verdicts]
    return [known[scored.solution.steps] for scored in found.pool]


def failure_record(job: Job, error: ProblemError) -> Record:
    """The record of an unusable problem."""
    nothing = {"question_type": "", "question": "", "images": 0, "gold": None, "candidates": [], "shares": []}
    return {**_head(job), "failure": error.cause, "said": str(error), **nothing, "cost": asdict(Cost())}


def _head(job: Job) -> Record:
    return {"key": job.key, "at": job.at, "schema": SCHEMA_VERSION, "benchmark": job.problem_set.name,
            "problem": job.problem_id, "method": job.record, "failure": "", "said": ""}  # fmt: skip
