"""Score the solutions of a source again. Rewards are stored as they come, so that a killed run continues."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Iterator

from data_synth.selected.candidates import Candidate, Group, groups, rescored
from data_synth.selected.config import SelectConfig
from vlprm.errors import ProblemError
from vlprm.runs.journal import Records
from vlprm.runs.progress import progress
from vlprm.runs.window import in_window, leave_unless, stopped_by_sigint
from vlprm.schema import StepScore
from vlprm.scoring.open import open_scorer
from vlprm.tasks import Tasks

log = logging.getLogger(__name__)

REWARDS = "rewards.jsonl"


def score(config: SelectConfig, tasks: Tasks, total: int) -> None:
    """Write the rewards of the solutions of all `total` problems to the run's `rewards.jsonl`."""
    records = Records(config.run / REWARDS)
    if len(records.keys) < total:
        asyncio.run(_score(config, tasks, total, records))
    leave_unless(len(records.keys) == total)


async def _score(config: SelectConfig, tasks: Tasks, total: int, records: Records) -> None:
    async with open_scorer(config.reward_model, config.scorer) as scorer:
        with stopped_by_sigint() as stopping, progress("problems", total, len(records.keys)) as reached:

            async def scored(place: tuple[int, Group]) -> dict[str, object]:
                at, group = place
                try:
                    found = await scorer.score(group.problem, group.solutions)
                except ProblemError as error:
                    log.warning("%s has no rewards: %s", group.problem.id, error)
                    return {"key": str(at), "scores": None, "failure": error.cause}
                return {"key": str(at), "scores": [[s and dataclasses.asdict(s) for s in one] for one in found.steps]}

            todo = (one for one in enumerate(groups(config, tasks, drawn=True)) if str(one[0]) not in records.keys)
            async for record in in_window(todo, scored, config.in_flight, stopping):
                records.append([record])
                reached(len(records.keys))


def with_rewards(config: SelectConfig, tasks: Tasks) -> Iterator[Candidate]:
    """The candidates of the source, with the rewards of the config's models if it has any. The candidates of a problem
    that these refused have none."""
    stored = (
        {record["key"]: record["scores"] for record in Records(config.run / REWARDS)} if config.reward_model else {}
    )
    for at, group in enumerate(groups(config, tasks)):
        if not config.reward_model:
            yield from group.candidates
            continue
        none = [[None] * len(one.texts) for one in group.candidates]
        for candidate, scores in zip(group.candidates, stored[str(at)] or none, strict=True):
            yield rescored(candidate, [score and StepScore(**score) for score in scores])
