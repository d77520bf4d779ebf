"""Run search methods on benchmarks and append one record per problem and method, for `eval.table`.

    python -m eval.run --config configs/eval/builtin.yaml

A record holds all candidates. Methods that choose among whole samples share one pool, which is sampled and scored once
and read by every selector of `eval.table`. To resume a run that was killed or stopped by SIGINT, run the same command
again. `shard: 0/4` runs every fourth problem, in a folder of its own; `ray` runs the work on a cluster.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from functools import partial

from eval.runs.config import RunConfig
from eval.runs.jobs import Job, jobs_of
from eval.runs.worker import Record, open_worker, open_worker_anew
from vlprm.model.loading import checkpoint_folder
from vlprm.policy.open import placed
from vlprm.runs.config import dump, run
from vlprm.runs.folder import open_run, timed
from vlprm.runs.journal import Records, finish, in_units
from vlprm.runs.progress import progress
from vlprm.runs.ray import Cluster, on_ray
from vlprm.runs.window import in_window, leave_unless, stopped_by_sigint
from vlprm.serving.config import ModelConfig, gpus_of

log = logging.getLogger(__name__)


def main(config: RunConfig) -> None:
    """Write the records of all jobs to the run folder."""
    jobs = jobs_of(config)
    reward_model, critic = config.reward_model and placed(config.reward_model), config.critic and placed(config.critic)
    config = dataclasses.replace(config, policy=placed(config.policy), reward_model=reward_model, critic=critic)
    folders = [checkpoint_folder(model.checkpoint) for model in models_of(config)]
    open_run(config.run, dump(config), config.search.seed, folders)
    records = Records(config.run / "records.jsonl")
    with timed(config.run, "run"):
        if len(records.keys) < len(jobs):
            asyncio.run(solve_all(jobs, records, config))
    leave_unless(len(records.keys) == len(jobs))
    finish(records)


async def solve_all(jobs: Sequence[Job], records: Records, config: RunConfig) -> None:
    """Append a record for each job that has none. After SIGINT, only the running jobs are completed."""

    def write(done: Sequence[Record]) -> None:
        for record in done:
            if record["failure"]:
                log.warning("%s", record["said"])
        records.append(done)
        reached(len(records.keys))

    with stopped_by_sigint() as stopping, progress("records", len(jobs), len(records.keys)) as reached:
        units, at_once = open_units(jobs, records, config)
        if config.ray:
            keys = ([job.key for job in unit] for unit in units)
            cluster = Cluster(config.ray, config.workers, gpus_of(models_of(config)), at_once)
            await on_ray(keys, partial(open_worker_anew, config), write, cluster, stopping)
            return
        async with open_worker(config) as solved:
            async for done in in_window(units, solved, at_once, stopping):
                write(done)


def open_units(jobs: Sequence[Job], records: Records, config: RunConfig) -> tuple[Iterator[list[Job]], int]:
    """Units of unfinished jobs, and the number of concurrent units. An in-process policy gets whole units, one at a
    time, so that its batches, and the last bits of its results, do not depend on interruptions. A served policy gets
    single jobs, so that no job waits for another."""
    if config.policy.is_served:
        return ([job] for job in jobs if job.key not in records.keys), config.unit
    return in_units(jobs, config.unit, records, key=lambda job: job.key), 1


def models_of(config: RunConfig) -> list[ModelConfig]:
    """The models that the config names."""
    return [model for model in (config.policy, config.reward_model, config.critic) if model is not None]


if __name__ == "__main__":
    run(main, RunConfig)
