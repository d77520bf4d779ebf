"""Aggregation rules: the reward of a solution from the rewards of its steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from vlprm.schema import Aggregation


def _product(rewards: Sequence[float]) -> float:
    """Product; a reward below 0, as `scorer.risk` may make one, counts as 0."""
    return math.prod(max(p, 0.0) for p in rewards)


def _mean(rewards: Sequence[float]) -> float:
    return sum(rewards) / len(rewards)


def _mean_odds(rewards: Sequence[float]) -> float:
    """Mean odds p / (1 - p), clipped at 0 and near p = 1."""
    return _mean([p / (1 - p) for p in (min(max(p, 0.0), 1 - 1e-6) for p in rewards)])


AGGREGATIONS: dict[Aggregation, Callable[[Sequence[float]], float]] = {
    "last": lambda rewards: rewards[-1],
    "min": min,
    "mean": _mean,
    "product": _product,
    "mean_odds": _mean_odds,
}


def aggregated(rewards: Sequence[float | None], aggregation: Aggregation) -> float | None:
    """Aggregate step rewards; None (no result) without steps, or if a step lacks a reward."""
    known = [reward for reward in rewards if reward is not None]
    return AGGREGATIONS[aggregation](known) if known and len(known) == len(rewards) else None
