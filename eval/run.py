"""Run search methods on benchmarks and append one record per problem and method, for `eval.table`.

    python -m eval.run --config configs/eval/builtin.yaml

A record holds all candidates. Methods that choose among whole samples share one pool, which is sampled and scored once
and read by every selector of `eval.table`. To resume a run that was killed or stopped by SIGINT, run the same command
again; on a finished run, it repeats the problems with requests that servers failed to answer. `shard: 0/4` runs every
fourth problem, in a folder of its own; `ray` runs the work on a cluster. `pool` scores the candidates of another run
with this run's reward model, so that reward models are compared on the same texts.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from eval.runs.config import RunConfig
from eval.runs.jobs import Job, jobs_of
from eval.runs.worker import Record, open_pool, open_worker, open_worker_anew
from vlprm.model.reward_loading import parameter_count
from vlprm.policy import OUTAGES
from vlprm.policy.open import folders_of, placed
from vlprm.runs.config import dump, run
from vlprm.runs.folder import open_run, timed, write_atomically
from vlprm.runs.index import FAILED, UNANSWERED, Note, Summary
from vlprm.runs.journal import Records, finish, in_units
from vlprm.runs.pools import PARAMETERS, RECORDS
from vlprm.runs.progress import progress
from vlprm.runs.ray import Cluster, on_ray
from vlprm.runs.window import (
    drop_failed,
    in_window,
    leave_unless,
    refuse_if_all_failed,
    stopped_by_sigint,
    tell_unanswered,
)
from vlprm.search.tokens import Parameters
from vlprm.serving.config import ModelConfig, devices_of

log = logging.getLogger(__name__)


def main(config: RunConfig) -> None:
    """Write the records of all jobs to the run folder."""
    jobs = jobs_of(config)
    reward_model, critic = (model and placed(model, config.ray) for model in (config.reward_model, config.critic))
    policy = placed(config.policy, config.ray)
    config = dataclasses.replace(config, policy=policy, reward_model=reward_model, critic=critic)
    own, of_servers = folders_of(models_of(config))
    files = [benchmark.problem_file for benchmark in config.benchmarks if benchmark.problem_file is not None]
    if config.pool is not None:
        open_pool(config)
        files.append(config.pool / RECORDS)
    open_run(config.run, dump(config), config.search.seed, [*own, *files], of_servers)
    records = Records(config.run / RECORDS, SUMMARY)
    drop_failed(records)
    with timed(config.run, "run"):
        if len(records.keys) < len(jobs):
            asyncio.run(solve_all(jobs, records, config))
    leave_unless(len(records.keys) == len(jobs))
    refuse_if_all_failed(records, _example, "no problem could be solved", "correct the problems or the servers")
    write_atomically(config.run / PARAMETERS, json.dumps(asdict(parameters_of(config))) + "\n")
    finish(records)
    tell_unanswered(sum(entry.note[UNANSWERED] for entry in records.entries()))


def _note(record: Mapping[str, Any]) -> Note:
    """Whether servers failed, and the causes if a problem cannot be used, or if servers answered no request for it."""
    stops = Counter(candidate["solution"]["stop"] for candidate in record["candidates"])
    note: Note = {UNANSWERED: not OUTAGES.isdisjoint(stops)}
    if record["failure"]:
        return {**note, FAILED: {record["failure"]: 1}}
    return {**note, FAILED: stops} if stops and not stops.keys() - OUTAGES else note


SUMMARY = Summary("results@1", _note)


def _example(record: Mapping[str, Any]) -> str:
    stops = dict.fromkeys(candidate["solution"]["stop"] for candidate in record["candidates"])
    return str(record["said"]) or f"{record['problem']}: servers answered no request ({', '.join(stops)})"


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
            cluster = Cluster(config.ray, config.workers, devices_of(models_of(config)), at_once)
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


def parameters_of(config: RunConfig) -> Parameters:
    """Number of parameters of the config's models; served ones are counted by their config."""

    def count(model: ModelConfig | None) -> int:
        return parameter_count(model.checkpoint) if model else 0

    return Parameters(count(config.policy), count(config.reward_model), count(config.critic))


def models_of(config: RunConfig) -> list[ModelConfig]:
    """The models that the config names."""
    return [model for model in (config.policy, config.reward_model, config.critic) if model is not None]


if __name__ == "__main__":
    run(main, RunConfig)
