"""Search trees -> a judge's verdict on every step. Here, the stand-in for a strong VLM.

    python -m data_synth.judge --config configs/demo/judge.yaml

Writes `judgements.jsonl` (a record a tree, resumable): `verdicts` has one verdict or null (no result) for each node.

The oracle judge knows the scene of a synthetic problem and errs at a declared, seeded rate. It exists so that the
demo needs no server; its numbers are those of a simulated judge wherever they appear.
"""

from __future__ import annotations

import dataclasses
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse.typing import ClosedUnitInterval

from data_synth.store import Searched, TreeRun
from vlprm.config import dump, run
from vlprm.records import Records, finish, open_run, timed
from vlprm.schema import Problem, Step, Verdict
from vlprm.tasks import TASKS, Tasks, load_tasks, refuse_other_tasks, task_of
from vlprm.tasks.scene import rng_for
from vlprm.tasks.synthetic import SyntheticFamily

log = logging.getLogger(__name__)

KINDS = ("perception", "reasoning")


@dataclass(frozen=True)
class JudgeConfig:
    """Judge the steps of search trees.

    Args:
        trees: the run folder of data_synth.trees.
        run: folder to write.
        tasks: task names or module paths, as they were given to data_synth.trees.
        error_rate: declared error rate of the oracle that stands in for a judge.
        seed: decides the judge's errors.
    """

    trees: Path
    run: Path
    tasks: tuple[str, ...] = tuple(TASKS)
    error_rate: ClosedUnitInterval = 0.1
    seed: int = 0


def main(config: JudgeConfig) -> None:
    tasks = load_tasks(config.tasks)
    trees = TreeRun(config.trees)
    refuse_other_tasks(trees.ids, tasks)
    open_run(config.run, dump(config), config.seed, trees.files)
    records = Records(config.run / "judgements.jsonl")
    with timed(config.run, "judge"):
        for searched in trees:
            if searched.problem.id not in records.keys:
                records.append([_judged(searched, tasks, config)])
    finish(records)
    log.info("%d trees judged", len(records.keys))


def _judged(searched: Searched, tasks: Tasks, config: JudgeConfig) -> dict[str, Any]:
    """The record of a tree. A prefix that solutions share is judged once."""
    problem, tree = searched.problem, searched.tree
    family = task_of(problem.task, tasks)
    verdicts: list[Verdict | None] = [None] * len(tree.nodes)
    for leaf, _ in tree.leaves:
        path = tree.path(leaf)
        steps = [tree.nodes[n].step for n in path]
        for node, verdict in zip(
            path, oracle_judge(family, problem, steps, config.error_rate, config.seed), strict=True
        ):
            verdicts[node] = verdict
    return {
        "key": problem.id,
        "judge": f"oracle with error rate {config.error_rate}",
        "verdicts": [None if verdict is None else dataclasses.asdict(verdict) for verdict in verdicts],
    }


def oracle_judge(
    family: SyntheticFamily, problem: Problem, steps: Sequence[Step], error_rate: float, seed: int
) -> list[Verdict | None]:
    """A verdict a step, wrong with probability `error_rate`; None where the step's text does not parse.

    The same prefix gets the same verdict in every solution that it opens.
    """
    truth = family.verdicts(problem, steps)
    return [
        noisy(verdict, rng_for("judge", seed, problem.id, *(s.text for s in steps[: i + 1])), error_rate)
        for i, verdict in enumerate(truth)
    ]


def noisy(verdict: Verdict | None, rng: random.Random, error_rate: float) -> Verdict | None:
    if verdict is None or rng.random() >= error_rate:
        return verdict
    return Verdict(False, rng.choice(KINDS)) if verdict.correct else Verdict(True)  # type: ignore[arg-type]


if __name__ == "__main__":
    run(main, JudgeConfig)
