"""A policy, a reward model, methods and benchmarks -> append-only records, which `eval.table` reads.

    python -m eval.run --config configs/eval/builtin.yaml

One record a problem and method, with all its candidates. The methods that choose from whole samples have one pool
together: it is drawn and scored once, and every selector of `eval.table` reads it. A run that was killed goes on where
it was; `shard: 0/4` takes every fourth problem, into a folder of its own.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveInt

from eval.asked import Asked, AskedConfig, open_asked
from vlprm.backbones import checkpoint_folder, placement
from vlprm.config import dump, run
from vlprm.engines import Engine
from vlprm.engines.choose import ServerConfig, open_engine
from vlprm.engines.local import LocalEngine
from vlprm.problems import ProblemError
from vlprm.prompts import critique_question
from vlprm.records import Records, finish, in_units, open_run, timed
from vlprm.reward_model import load_reward_model
from vlprm.schema import SCHEMA_VERSION, Problem, to_json
from vlprm.scorers import Scorer, open_scorer
from vlprm.search import METHODS, Critic, Found, ScoredSolution, SearchConfig, method_named, solve

log = logging.getLogger(__name__)

# Those that choose from `n` whole samples: they have one pool, and one record.
POOLED = ("pass_at_1", "self_consistency", "best_of_n", "weighted_majority")
POOL = "pool"


@dataclass(frozen=True)
class RunConfig:
    """Run methods on benchmarks.

    Args:
        run: folder to write.
        policy: checkpoint of the policy.
        benchmarks: what is asked; see eval/asked.py for the fields.
        methods: names of vlprm.search.METHODS.
        search: what they share.
        reward_model: checkpoint of the reward model, where a method needs one.
        critic: checkpoint of a reward model that has learnt critiques, where a method needs one.
        server: where the policy is served, in place of this process; `policy` is the folder that is served.
        scores: where the reward model is served, in place of this process.
        unit: problems that are solved side by side, and recorded together.
        shard: which part of the problems, such as 0/4.
        device: auto (the GPU where there is one), cpu, cuda, or cuda:1 and so on; config.yaml keeps what auto was.
        dtype: float32, or bfloat16 for half the memory.
    """

    run: Path
    policy: str
    benchmarks: tuple[AskedConfig, ...]
    methods: tuple[str, ...] = ("best_of_n",)
    search: SearchConfig = SearchConfig()
    reward_model: str | None = None
    critic: str | None = None
    server: ServerConfig = ServerConfig()
    scores: ServerConfig = ServerConfig()
    unit: PositiveInt = 32
    shard: str = "0/1"
    device: str = "auto"
    dtype: str = "float32"


@dataclass(frozen=True)
class Job:
    """A problem and a method; `record` is the name that the method has in records."""

    asked: Asked
    problem_id: str
    method: str
    record: str

    @property
    def key(self) -> str:
        return f"{self.asked.name}/{self.problem_id}/{self.record}"


def main(config: RunConfig) -> None:
    jobs = jobs_of(config)
    device, _ = placement(config.device, config.dtype)
    config = dataclasses.replace(config, device=device)
    folders = [checkpoint_folder(name) for name in (config.policy, config.reward_model, config.critic) if name]
    open_run(config.run, dump(config), config.search.seed, folders)
    records = Records(config.run / "records.jsonl")
    with timed(config.run, "run"):
        if units := list(in_units(jobs, config.unit, records, key=lambda job: job.key)):
            asyncio.run(solved(units, len(jobs), records, config))
    finish(records)


def jobs_of(config: RunConfig) -> list[Job]:
    """All there is to do, the problems of a benchmark after another's. ValueError names what is missing."""
    methods = methods_to_run(config)
    first, of = shard_of(config.shard)
    asked = [open_asked(benchmark) for benchmark in config.benchmarks]
    jobs = [Job(a, i, m, r) for m, r in methods for a in asked for i in a.ids[first::of]]
    if len({job.key for job in jobs}) < len(jobs):
        raise ValueError("a benchmark or a method is named twice; name it once")
    if not jobs:
        raise ValueError("there are no problems; name a benchmark that has some, or fewer shards")
    return jobs


def methods_to_run(config: RunConfig) -> list[tuple[str, str]]:
    """Names of methods, and what they are called in records. ValueError where a model that one needs is not given."""
    for name in config.methods:
        method = method_named(name)
        if method.needs_scorer and config.reward_model is None:
            raise ValueError(f"{name} needs reward_model, a checkpoint folder of train.prm; give one")
        if method.needs_critic and config.critic is None:
            raise ValueError(f"{name} needs critic, a reward model that has learnt critiques; give one")
    pooled = [name for name in config.methods if name in POOLED]
    sampler = "best_of_n" if config.reward_model else "self_consistency"
    return [*([(sampler, POOL)] if pooled else []), *((m, m) for m in config.methods if m not in POOLED)]


def shard_of(shard: str) -> tuple[int, int]:
    parts = re.fullmatch(r"(\d+)/(\d+)", shard)
    if parts is None or not int(parts[1]) < int(parts[2]):
        raise ValueError(f"shard {shard!r} is not of the form i/n with i below n, such as 0/4")
    return int(parts[1]), int(parts[2])


async def solved(units: Sequence[Sequence[Job]], total: int, records: Records, config: RunConfig) -> None:
    async with AsyncExitStack() as opened:
        placed = config.device, config.dtype
        policy = await opened.enter_async_context(open_engine(config.policy, *placed, config.server))
        scorer, critic = None, None
        if config.reward_model:
            scorer = await opened.enter_async_context(open_scorer(config.reward_model, *placed, config.scores))
        if config.critic:
            engine = LocalEngine(load_reward_model(config.critic, *placement(*placed)))
            critic = Critic(engine, critique_question(engine.checkpoint.profile.prompt_template))
        for unit in units:
            done = await asyncio.gather(*(one(job, policy, scorer, critic, config.search) for job in unit))
            records.append(done)
            log.info("%d of %d done", len(records.keys), total)


async def one(
    job: Job, policy: Engine, scorer: Scorer | None, critic: Critic | None, search: SearchConfig
) -> dict[str, Any]:
    """The record of a job. A problem that cannot be used has one too, which says why."""
    head = {"key": job.key, "schema": SCHEMA_VERSION, "benchmark": job.asked.name, "problem": job.problem_id,
            "method": job.record}  # fmt: skip
    try:
        problem = job.asked.problem(job.problem_id)
        found = await solve(job.method, problem, policy, scorer, search, critic)
    except ProblemError as error:
        log.warning("%s", error)
        return {**head, "failure": error.failure}
    return {**head, **outcome(job, problem, found, search)}


def outcome(job: Job, problem: Problem, found: Found, search: SearchConfig) -> dict[str, Any]:
    """The candidates as the benchmark's rule reads them, and the choice among its answers."""
    readings = [job.asked.read(problem, scored.solution) for scored in found.pool]
    pool = [dataclasses.replace(s.candidate, answer=r.answer) for s, r in zip(found.pool, readings, strict=True)]
    shares = METHODS[job.method].choose(pool, search.aggregation) if pool else []
    return {
        "question_type": str(problem.meta.get("question_type", "")),
        "gold": problem.answer,
        "candidates": [
            {"answer": r.answer, "right": None if r.answer is None else r.correct, **_stored(s)}
            for s, r in zip(found.pool, readings, strict=True)
        ],
        "shares": shares,
        "cost": asdict(found.cost),
    }


def _stored(scored: ScoredSolution) -> dict[str, Any]:
    scores = [score and asdict(score) for score in scored.scores]
    return {"solution": to_json(scored.solution), "scores": scores, "read": scored.read}


if __name__ == "__main__":
    run(main, RunConfig)
