"""Search a run's problems in this process, with servers, or on a Ray cluster. All call the same search function and
write the same records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data_synth.search.config import TreeSearchConfig
from data_synth.search.estimators import search
from data_synth.search.source import Source
from data_synth.search.store import Failed, Outcome, Searched, failure_record, tree_record
from vlprm.errors import ProblemError
from vlprm.policy import UNANSWERED, Policy, all_answers
from vlprm.policy.open import open_policy
from vlprm.policy.replay import ANSWERS, ReplayPolicy
from vlprm.runs.journal import Records, in_units
from vlprm.runs.progress import Reached
from vlprm.runs.ray import Cluster, on_ray
from vlprm.runs.ray import Work as UnitWork
from vlprm.runs.window import in_window
from vlprm.serving.config import devices_of


@dataclass(frozen=True)
class Work:
    """Problems to search, the records and image folder to write, the event that stops the run, and who is told the
    number of records."""

    source: Source
    units: Sequence[Sequence[str]]
    search: TreeSearchConfig
    seed: int
    records: Records
    images: Path
    stopping: asyncio.Event
    reached: Reached

    @property
    def is_done(self) -> bool:
        """Whether every problem has a record."""
        return all(problem_id in self.records.keys for unit in self.units for problem_id in unit)

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Append the records of finished problems."""
        self.records.append(map(self._record, outcomes))
        self.reached(len(self.records.keys))

    def _record(self, outcome: Outcome) -> dict[str, Any]:
        if isinstance(outcome, Failed):
            return failure_record(self.source.places[outcome.problem_id], outcome)
        return tree_record(self.source.places[outcome.problem.id], outcome, self.images)


async def search_one(problem_id: str, source: Source, engine: Policy, config: TreeSearchConfig, seed: int) -> Outcome:
    """Search one problem; Failed if the problem itself cannot be searched."""
    try:
        problem = source.problem(problem_id)
        return Searched(problem, await search(problem, engine, config, seed))
    except ProblemError as error:
        return Failed(problem_id, error.failure, str(error))


async def in_process(work: Work, engine: Policy) -> None:
    """Search unit by unit: batches, and so rounding errors, are the same however often the run was interrupted. SIGINT
    takes effect after a unit."""
    for units in work.units:
        for unit in in_units(units, len(units), work.records, key=lambda i: i):
            if not work.stopping.is_set():
                asked = (search_one(i, work.source, engine, work.search, work.seed) for i in unit)
                work.write(await all_answers(asked))


async def served(work: Work, engine: Policy, in_flight: int) -> None:
    """Search up to `in_flight` problems concurrently. Answers are stored until their problem's record is written with
    every request answered."""
    kept = ReplayPolicy(engine, work.records.path.with_name(ANSWERS), work.records.keys, work.stopping)
    todo = (i for unit in work.units for i in unit if i not in work.records.keys)
    results = in_window(
        todo, lambda i: search_one(i, work.source, kept, work.search, work.seed), in_flight, work.stopping
    )
    async for outcome in results:
        work.write([outcome])
        if isinstance(outcome, Failed):
            kept.forget(outcome.problem_id)
        elif not UNANSWERED & outcome.tree.stops.keys():
            kept.forget(outcome.problem.id)
    kept.compact()


async def on_cluster(work: Work, config: Any, open_source: Callable[[Any], Source]) -> None:
    """Search units on the actors of a Ray cluster. `config` is a TreesConfig."""
    is_served = config.policy.is_served
    cluster = Cluster(config.ray, config.workers, devices_of([config.policy]), at_once=2 if is_served else 1)
    todo = ([i for i in unit if i not in work.records.keys] for unit in work.units)
    await on_ray(filter(None, todo), partial(_opened, config, open_source), work.write, cluster, work.stopping)


@asynccontextmanager
async def _opened(config: Any, open_source: Callable[[Any], Source]) -> AsyncIterator[UnitWork[str, Outcome]]:
    source = open_source(config)
    async with open_policy(config.policy) as engine:

        async def searched(unit: Sequence[str]) -> list[Outcome]:
            asked = (search_one(i, source, engine, config.search, config.seed) for i in unit)
            return await all_answers(asked)

        yield searched
