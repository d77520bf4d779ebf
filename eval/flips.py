"""Measure whether step rewards follow the image: pairs of images that differ in one fact, on drawn problems.

    python -m eval.flips --reward_model runs/demo/prm --run runs/flips

In each pair exactly one step of a solution is right on one image and wrong on the other (`vlprm.tasks.flips`). *Flip
accuracy* is how often its reward is larger on the image on which it is right. Beside it, the right image is compared
with no image, with another problem's, and with the same image and a step that is reworded to what the other image
shows. Writes the steps, where the images differ, and the rewards to `records.jsonl`; writes the measures to
`results.json`, and prints them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from eval.step_scores.config import FlipsConfig
from eval.step_scores.flips import flips_table, measured
from vlprm.errors import ProblemError, UserError
from vlprm.policy import all_answers
from vlprm.policy.open import folders_of, placed
from vlprm.runs.config import dump, run
from vlprm.runs.folder import open_run, write_atomically
from vlprm.runs.journal import Records, finish, in_units
from vlprm.runs.pools import RECORDS
from vlprm.runs.progress import progress
from vlprm.schema import Problem, Step
from vlprm.scoring import Scorer
from vlprm.scoring.open import open_scorer
from vlprm.tasks import Tasks, load_tasks, problem_by_id, task_of
from vlprm.tasks.flips import Flip, flips
from vlprm.tasks.synthetic import item_ids

WIDTH = 200  # characters of the table


def main(config: FlipsConfig) -> None:
    """Write the rewards and measures to the run folder, and print a table."""
    if not config.reward_model:
        raise UserError("reward_model is empty; give at least one model")
    tasks = load_tasks(config.tasks)
    for family in tasks.values():
        if not family.changes(family.scene(config.split, 0)):
            raise UserError(f"{family.name} lists no changes of its scenes; pass other tasks, or give it `changes`")
    ids = item_ids(list(tasks.values()), config.split, config.problems)
    config = dataclasses.replace(config, reward_model=tuple(map(placed, config.reward_model)))
    open_run(config.run, dump(config), config.seed, *folders_of(config.reward_model))
    records = Records(config.run / RECORDS)
    if units := list(in_units(ids, config.unit, records, key=str)):
        asyncio.run(_score(units, tasks, config, records, len(ids)))
    finish(records)
    results = measured([pair for record in records for pair in record["pairs"]])
    write_atomically(config.run / "results.json", json.dumps(results, indent=2) + "\n")
    Console(width=WIDTH).print(flips_table(results))


async def _score(
    units: Sequence[Sequence[str]], tasks: Tasks, config: FlipsConfig, records: Records, total: int
) -> None:
    async with open_scorer(config.reward_model, config.scorer) as scorer:
        with progress("problems", total, len(records.keys)) as reached:
            for unit in units:
                records.append(await all_answers(_record(scorer, one, tasks, config) for one in unit))
                reached(len(records.keys))


async def _record(scorer: Scorer, problem_id: str, tasks: Tasks, config: FlipsConfig) -> dict[str, Any]:
    problem = problem_by_id(problem_id, tasks)
    family = task_of(problem.task, tasks)
    other = other_problem(problem, tasks)
    found = flips(family, problem, config.seed)
    pairs = await all_answers(_pair(scorer, flip, other) for flip in found)
    return {"key": problem_id, "pairs": pairs}


def other_problem(problem: Problem, tasks: Tasks) -> Problem:
    """The next item of the family and split with the same question type, whose image stands in for the problem's."""
    _, split, index = problem.id.split("/")
    family = task_of(problem.task, tasks)
    following = (family.problem(split, i, drawn=False) for i in range(int(index) + 1, int(index) + 1000))
    kind = problem.meta["question_type"]
    return problem_by_id(next(p.id for p in following if p.meta["question_type"] == kind), tasks)


async def _pair(scorer: Scorer, flip: Flip, other: Problem) -> dict[str, Any]:
    """The rewards of the last step of a pair, by what the model sees."""
    blind = tuple(dataclasses.replace(step, region=None) for step in flip.steps)
    asked: dict[str, tuple[Problem, Sequence[Step]]] = {
        "right": (flip.right, flip.steps),
        "flip": (flip.wrong, flip.steps),
        "removed": (dataclasses.replace(flip.right, id=f"{flip.id}/removed", images=()), blind),
        "swapped": (dataclasses.replace(flip.right, id=f"{flip.id}/swapped", images=other.images), flip.steps),
    }
    if flip.reworded is not None:
        asked["premise"] = (flip.right, (*flip.steps[:-1], flip.reworded))
    found = await all_answers(_reward(scorer, *one) for one in asked.values())
    rewards = dict(zip(asked, found, strict=True))
    causes = [said for said in rewards.values() if isinstance(said, str)]
    named = {"key": flip.id, "problem": flip.id.rpartition("/")[0], "task": flip.right.task, "kind": flip.kind}
    return {
        **named,
        "original": flip.original,
        "steps": [step.text for step in flip.steps],
        "boxes": [dataclasses.asdict(box) for box in flip.boxes],
        "no_result": causes[0] if causes else "",
        "rewards": rewards,
    }


async def _reward(scorer: Scorer, problem: Problem, steps: Sequence[Step]) -> float | str:
    """The reward of the last step, or why there is none."""
    try:
        scored = await scorer.score(problem, [steps])
    except ProblemError as error:
        return error.cause
    last = scored.steps[0][-1] if scored.steps[0] else None
    return "no_score" if last is None else last.correct


if __name__ == "__main__":
    run(main, FlipsConfig)
