"""The result of a benchmark: one JSON file in runs/bench."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlprm.metrics import bootstrap_interval
from vlprm.runs.folder import environment, write_atomically

FOLDER = Path("runs/bench")
RESAMPLES = 2000
Array = NDArray[np.float64]

# By selector and by a number (of problems, of candidates): {"accuracy": share, "ci": [low, high]}.
Curves = Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Effect:
    """How much better one way is than another, with its 95% interval. `unit` says in what: points (of 100), F1,
    AUROC. `problems` and `seeds` are the numbers that it is averaged over."""

    value: float
    low: float
    high: float
    unit: str
    problems: int
    seeds: int = 1


def points(gains: Array) -> Effect:
    """The mean of gains in points: of problems (P,), or of seeds and problems (S, P)."""
    gains_SP = np.atleast_2d(gains)
    seeds, problems = gains_SP.shape
    return Effect(float(np.nanmean(gains_SP)), *interval_over_seeds(gains_SP), "points", problems, seeds)


def interval_over_seeds(values_SP: Array) -> tuple[float, float]:
    """95% bootstrap interval of the mean of values of seeds and problems; each resample draws seeds and problems. NaN
    stands for a missing value."""
    seeds, problems = values_SP.shape
    if seeds == 1:
        return bootstrap_interval(values_SP[~np.isnan(values_SP)])
    rng = np.random.default_rng(0)
    means = []
    for _ in range(RESAMPLES):
        drawn = values_SP[np.ix_(rng.integers(0, seeds, seeds), rng.integers(0, problems, problems))]
        if not np.isnan(drawn).all():
            means.append(np.nanmean(drawn))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def write_result(
    name: str,
    rows: list[dict[str, Any]],
    headline: dict[str, tuple[float, float]],
    effects: Mapping[str, Effect] | None = None,
    curves: Mapping[str, Curves] | None = None,
) -> None:
    """Write the rows. `headline` maps each key to the measured value and its goal. tests.perf.claims reads the effects,
    and the curves by title."""
    result = {
        "name": name,
        "device": f"{platform.machine()}, {os.cpu_count()} CPU cores",
        "versions": environment(seed=0)["packages"],
        "rows": rows,
        "headline": {key: {"value": value, "goal": goal} for key, (value, goal) in headline.items()},
        "effects": {key: asdict(effect) for key, effect in (effects or {}).items()},
        "curves": curves or {},
    }
    path = FOLDER / f"{name}.json"
    write_atomically(path, json.dumps(result, indent=2) + "\n")
    for key, (value, goal) in headline.items():
        print(f"{name}: {key} {value:.3g} (goal {goal:g})")
    print(f"in {path}")
