"""How the scores of a reward model, or an outcome, become step rewards. Pure functions on lists.

A reward model that is paid as a plain scalar gets exploited in the end (URSA, PURE, VeriGate and others report it). So
the ways here either tie it to the outcome (signed, and `vlprm.scoring.gate`), compare (progress, ranks), or look at the
worst step (softmin).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Literal

from train.policy.advantages import GroupNumbers, StepNumbers, prm_values

Paid = Literal["step", "progress", "min", "mean", "softmin", "signed", "ranks"]
TEMPERATURE = 0.1  # temperature of softmin, as in PURE
PLAIN: frozenset[Paid] = frozenset({"min", "mean", "step"})  # ways in which a high score pays by itself


def on_last(reward: float | None, steps: int) -> list[float | None] | None:
    """A reward of the whole path: paid on its last step. None without a result or a step."""
    return None if reward is None or not steps else [*([0.0] * (steps - 1)), reward]


def paid(how: Paid, scores: GroupNumbers, outcomes: Sequence[float | None]) -> list[list[float | None] | None]:
    """The step rewards of a group from the scores of its paths:

    step (the score), progress (the score less that of the step before; the first step's less the group's mean first
    score), min and mean (on the last step), softmin (weighted by softmax(-score / T), so that the sum is about the
    minimum), signed (score + outcome - 1: a wrong path never gains, a right one never loses), ranks (the share of the
    other paths whose mean score is lower, on the last step)."""
    if how == "ranks":
        return _ranks(scores)
    return [
        None if path is None or before is None else _paid(how, path, before, outcome)
        for path, before, outcome in zip(scores, prm_values(scores), outcomes, strict=True)
    ]


def _paid(how: Paid, path: StepNumbers, before: StepNumbers, outcome: float | None) -> list[float | None] | None:
    if how == "step":
        return list(path)
    if how == "progress":
        return [None if a is None or b is None else b - a for a, b in zip(before, path, strict=True)]
    if how == "signed":
        return None if outcome is None else [None if score is None else score + outcome - 1 for score in path]
    known = [score for score in path if score is not None]
    if len(known) < len(path) or not known:
        return None
    if how == "softmin":
        least = min(known)
        weights = [math.exp((least - score) / TEMPERATURE) for score in known]
        return [weight / math.fsum(weights) * score for weight, score in zip(weights, known, strict=True)]
    return on_last(min(known) if how == "min" else fmean(known), len(path))


def _ranks(scores: GroupNumbers) -> list[list[float | None] | None]:
    means = [_path_mean(path) for path in scores]
    known = [mean for mean in means if mean is not None]

    def share(mean: float | None) -> float | None:
        if mean is None or len(known) < 2:
            return None
        below = sum(other < mean for other in known) + (sum(other == mean for other in known) - 1) / 2
        return below / (len(known) - 1)

    return [None if path is None else on_last(share(mean), len(path)) for path, mean in zip(scores, means, strict=True)]


def _path_mean(path: StepNumbers | None) -> float | None:
    known = [score for score in path or () if score is not None]
    return fmean(known) if path and len(known) == len(path) else None
