"""The stand-in for a strong judge: it knows the scene of a synthetic problem and errs at a declared, seeded rate.

It exists so that the demo needs no server; its numbers are those of a simulated judge wherever they appear.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from vlprm.schema import Problem, Step, StepTree, Verdict
from vlprm.tasks.scene import rng_for
from vlprm.tasks.synthetic import SyntheticFamily

KINDS = ("perception", "reasoning")


def oracle_verdicts(
    family: SyntheticFamily, problem: Problem, tree: StepTree, error_rate: float, seed: int
) -> list[Verdict | None]:
    """A verdict on each node of a tree. A prefix that solutions share is judged once."""
    verdicts: list[Verdict | None] = [None] * len(tree.nodes)
    for leaf, _ in tree.leaves:
        path = tree.path(leaf)
        steps = [tree.nodes[n].step for n in path]
        for node, verdict in zip(path, oracle_judge(family, problem, steps, error_rate, seed), strict=True):
            verdicts[node] = verdict
    return verdicts


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
