"""Jobs of eval.run: one per problem and method."""

from __future__ import annotations

from dataclasses import dataclass

from eval.runs.config import RunConfig
from eval.runs.models import refuse_missing_models
from eval.runs.pools import POOLED
from eval.runs.problem_sets import ProblemSet, open_problem_set
from vlprm.errors import UserError
from vlprm.runs.pools import POOL
from vlprm.runs.shards import shard_of


@dataclass(frozen=True)
class Job:
    """A problem and a method. `record`: the method's name in records. `at`: the job's index in the whole run, over all
    shards."""

    at: int
    problem_set: ProblemSet
    problem_id: str
    method: str
    record: str

    @property
    def key(self) -> str:
        """The key of the job's record."""
        return f"{self.problem_set.name}/{self.problem_id}/{self.record}"


def jobs_of(config: RunConfig) -> list[Job]:
    """All jobs of the shard, method by method and alternating between benchmarks, so that an interrupted run covers all
    benchmarks. UserError if the config is not valid."""
    methods = methods_to_run(config)
    first, of = shard_of(config.shard)
    sets = [open_problem_set(benchmark) for benchmark in config.benchmarks]
    turns = sorted(((k, s) for s, one in enumerate(sets) for k in range(len(one.ids))))
    every = ((sets[s], sets[s].ids[k], method, record, k) for method, record in methods for k, s in turns)
    jobs = [Job(at, one, i, method, record) for at, (one, i, method, record, k) in enumerate(every) if k % of == first]
    if len({job.key for job in jobs}) < len(jobs):
        raise UserError("a benchmark or a method is named twice; list it once")
    if not config.methods:
        raise UserError("methods is empty; name at least one, such as best_of_n")
    if not config.benchmarks:
        raise UserError("benchmarks is empty; name at least one, such as {name: count_grid, problems: 100}")
    if not jobs:
        raise UserError("there are no problems to solve; give a benchmark more problems, or use fewer shards")
    return jobs


def methods_to_run(config: RunConfig) -> list[tuple[str, str]]:
    """Method names, each with its name in records. UserError if a method lacks a model that it needs."""
    refuse_missing_models(config.methods, config.reward_model, config.critic, config.scorer, config.search.aggregation)
    scored = config.reward_model
    if config.whole and (scored is None or scored.is_served or config.scorer.kind != "steps"):
        raise UserError(
            "whole needs a reward model that scores steps in this process; set reward_model, or remove whole"
        )
    pooled = [name for name in config.methods if name in POOLED]
    if config.pool is not None and len(pooled) < len(config.methods):
        other = next(name for name in config.methods if name not in POOLED)
        raise UserError(f"{other} samples its own candidates; with pool, use methods among {', '.join(POOLED)}")
    if config.pool is not None and scored is None:
        raise UserError("pool gives candidates to score; set reward_model to a checkpoint folder of train.prm")
    if config.checksum and config.pool is None:
        raise UserError("checksum is that of a pool; set pool to its run folder, or remove checksum")
    sampler = "best_of_n" if scored else "self_consistency"
    return [*([(sampler, POOL)] if pooled else []), *((m, m) for m in config.methods if m not in POOLED)]
