"""Grow search trees: sample solutions from a policy and count right rollouts per prefix.

    python -m data_synth.trees --config configs/demo/trees.yaml

Writes `trees.jsonl` (one record per problem, see data_synth.search.store) into the run folder. The same command resumes
a run that was killed or stopped by SIGINT; on a finished run, it repeats requests that servers failed to answer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import Counter

from data_synth.search.config import TreesConfig
from data_synth.search.drive import Work, in_process, on_cluster, served
from data_synth.search.source import Source, drawn_problems, problems_of_file
from data_synth.search.store import FIXED, IMAGES, SUMMARY, TREES, shard_name
from vlprm.policy.open import folders_of, open_policy, placed
from vlprm.runs.config import dump, run
from vlprm.runs.cost import Meter
from vlprm.runs.folder import open_run, timed
from vlprm.runs.index import FAILED, UNANSWERED, Entry
from vlprm.runs.journal import Records, finish, record_at
from vlprm.runs.progress import progress
from vlprm.runs.shards import shard_of
from vlprm.runs.window import (
    drop_failed,
    leave_unless,
    refuse_if_all_failed,
    stopped_by_sigint,
    tell_unanswered,
)
from vlprm.serving.config import device_count
from vlprm.tasks import load_tasks

log = logging.getLogger(__name__)


def main(config: TreesConfig) -> None:
    """Run `vlprm trees`."""
    source = open_source(config)
    units = source.units(config.unit, config.shard)
    config = dataclasses.replace(config, policy=placed(config.policy, config.ray))
    i, n = shard_of(config.shard)
    folder = config.run / shard_name(i, n) if n > 1 else config.run
    own, of_servers = folders_of([config.policy])
    inputs = [*own, *filter(None, [config.problem_file])]
    open_run(folder, dump(config), config.seed, inputs, of_servers, FIXED if n > 1 else ())
    records = Records(folder / TREES, SUMMARY)
    drop_failed(records)
    with timed(folder, "trees"):
        done = asyncio.run(_search(source, units, records, config))
    leave_unless(done)
    refuse_if_all_failed(
        records, lambda record: str(record["said"]), "no problem can be searched", "correct the problems"
    )
    finish(records)
    _report(records)


def open_source(config: TreesConfig) -> Source:
    """The problems of a config: its problem file, or drawn tasks."""
    if config.problem_file is not None:
        return problems_of_file(config.problem_file)
    return drawn_problems(load_tasks(config.tasks), config.split, config.problems)


async def _search(source: Source, units: list[list[str]], records: Records, config: TreesConfig) -> bool:
    """Search all units; False if SIGINT stopped the run first."""
    total, done = sum(map(len, units)), len(records.keys)
    meter = Meter(records.path.parent, "trees", device_count(config.policy, config.workers if config.ray else 1))
    with stopped_by_sigint() as stopping, progress("problems", total, done) as reached, meter:
        work = Work(source, units, config.search, config.seed, records, config.run / IMAGES, stopping, reached, meter)
        if work.is_done:
            return True
        if config.ray:
            await on_cluster(work, config, open_source)
            return work.is_done
        async with open_policy(config.policy) as engine:
            await (served(work, engine, config.in_flight) if config.policy.is_served else in_process(work, engine))
        return work.is_done


def _report(records: Records) -> None:
    sums: Counter[str] = Counter(trees=0, mixed=0, rollouts=0, steps=0, failed_roots=0)
    unanswered = 0
    failures: Counter[str] = Counter()
    first: dict[str, Entry] = {}
    for entry in records.entries():
        note = entry.note
        for cause in note.get(FAILED, {}):
            failures[cause] += 1
            first.setdefault(cause, entry)
        if FAILED not in note:
            sums.update(trees=1, **{name: note[name] for name in ("mixed", "rollouts", "steps", "failed_roots")})
            unanswered += note[UNANSWERED]
    log.info(
        "%(trees)d trees, %(mixed)d with right and wrong root rollouts; %(rollouts)d rollouts, %(steps)d steps, "
        "%(failed_roots)d root rollouts without result", sums
    )  # fmt: skip
    tell_unanswered(unanswered)
    for cause, count in failures.items():
        said = record_at(records.path, first[cause].place)["said"]
        log.warning("%d problems cannot be searched (%s); the first: %s", count, cause, said)


if __name__ == "__main__":
    run(main, TreesConfig)
