"""Judges: who says of each step of a solution whether it is right. Here, the stand-in for a strong VLM.

The oracle judge knows the scene of a synthetic problem and errs at a declared, seeded rate. It exists so that the
demo needs no server; its numbers are those of a simulated judge wherever they appear.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from vlprm.schema import Problem, Step, Verdict
from vlprm.tasks.scene import rng_for
from vlprm.tasks.synthetic import SyntheticFamily

KINDS = ("perception", "reasoning")


def oracle_judge(
    family: SyntheticFamily, problem: Problem, steps: Sequence[Step], error_rate: float, seed: int
) -> list[Verdict | None]:
    """A verdict a step, wrong with probability `error_rate`; None where the step's text does not parse.

    The same prefix gets the same verdict in every solution that it opens.
    """
    truth = family.verdicts(problem, steps)
    return [
        _noisy(verdict, rng_for("judge", seed, problem.id, *(s.text for s in steps[: i + 1])), error_rate)
        for i, verdict in enumerate(truth)
    ]


def _noisy(verdict: Verdict | None, rng: random.Random, error_rate: float) -> Verdict | None:
    if verdict is None or rng.random() >= error_rate:
        return verdict
    return Verdict(False, rng.choice(KINDS)) if verdict.correct else Verdict(True)  # type: ignore[arg-type]
