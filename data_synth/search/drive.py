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
from vlprm.policy import OUTAGES, Policy, all_answers
from vlprm.policy.open import open_policy
from vlprm.policy.replay import ANSWERS, ReplayPolicy
from vlprm.policy.usage import CountedPolicy
from vlprm.runs.cost import Meter, Usage
from vlprm.runs.journal import Records, in_units
from vlprm.runs.progress import Reached
from vlprm.runs.ray import Cluster, on_ray
from vlprm.runs.ray import Work as UnitWork
from vlprm.runs.window import in_window
from vlprm.serving.config import devices_of


@dataclass(frozen=True)
class Work:
    """Problems to search, the records and image folder to write, the event that stops the run, who is told the number
    of records, and who is told what they cost."""

    source: Source
    units: Sequence[Sequence[str]]
    search: TreeSearchConfig
    seed: int
    records: Records
    images: Path
    stopping: asyncio.Event
    reached: Reached
    meter: Meter

    @property
    def is_done(self) -> bool:
        """Whether every problem has a record."""
        return all(problem_id in self.records.keys for unit in self.units for problem_id in unit)

    def write(self, outcomes: Sequence[Outcome], spent: Usage) -> None:
        """Append the records of finished problems. `spent`: what the run has used so far."""
        self.records.append(map(self._record, outcomes))
        self.reached(len(self.records.keys))
        self.meter.used(spent)

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
        return Failed(problem_id, error.cause, str(error))


async def in_process(work: Work, engine: Policy) -> None:
    """Search unit by unit: batches, and so rounding errors, are the same however often the run was interrupted. SIGINT
    takes effect after a unit."""
    counted = CountedPolicy(engine)
    for units in work.units:
        for unit in in_units(units, len(units), work.records, key=lambda i: i):
            if not work.stopping.is_set():
                asked = (search_one(i, work.source, counted, work.search, work.seed) for i in unit)
                work.write(await all_answers(asked), counted.usage)


async def served(work: Work, engine: Policy, in_flight: int) -> None:
    """Search up to `in_flight` problems concurrently. Answers are stored until their problem's record is written with
    every request answered."""
    counted = CountedPolicy(engine)
    kept = ReplayPolicy(counted, work.records.path.with_name(ANSWERS), work.records.keys, work.stopping)
    todo = (i for unit in work.units for i in unit if i not in work.records.keys)
    results = in_window(
        todo, lambda i: search_one(i, work.source, kept, work.search, work.seed), in_flight, work.stopping
    )
    async for outcome in results:
        work.write([outcome], counted.usage)
        if isinstance(outcome, Failed):
            kept.forget(outcome.problem_id)
        elif not OUTAGES & outcome.tree.stops.keys():
            kept.forget(outcome.problem.id)
    kept.compact()


async def on_cluster(work: Work, config: Any, open_source: Callable[[Any], Source]) -> None:
    """Search units on the actors of a Ray cluster. `config` is a TreesConfig."""
    is_served, total = config.policy.is_served, Usage()

    def write(results: Sequence[Outcome | Usage]) -> None:
        nonlocal total
        total = sum((one for one in results if isinstance(one, Usage)), total)
        work.write([one for one in results if not isinstance(one, Usage)], total)

    cluster = Cluster(config.ray, config.workers, devices_of([config.policy]), at_once=2 if is_served else 1)
    todo = ([i for i in unit if i not in work.records.keys] for unit in work.units)
    await on_ray(filter(None, todo), partial(_opened, config, open_source), write, cluster, work.stopping)


@asynccontextmanager
async def _opened(config: Any, open_source: Callable[[Any], Source]) -> AsyncIterator[UnitWork[str, Outcome | Usage]]:
    source, told = open_source(config), Usage()
    async with open_policy(config.policy) as engine:
        counted = CountedPolicy(engine)

        async def searched(unit: Sequence[str]) -> list[Outcome | Usage]:
            """The outcomes, and what was used since the last unit."""
            nonlocal told
            asked = (search_one(i, source, counted, config.search, config.seed) for i in unit)
            outcomes = await all_answers(asked)
            new, told = counted.usage - told, counted.usage
            return [*outcomes, new]

        yield searched
