"""Means, intervals and paired differences of a row's values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from eval.runs.results import Values
from vlprm.metrics import bootstrap_interval
from vlprm.search.tokens import Spend

RESAMPLES = 2000


def mean_spend(spends: Sequence[Spend]) -> Spend:
    """What is spent per problem."""
    sampled, read, flops = zip(*spends, strict=True)
    return Spend(float(np.mean(sampled)), float(np.mean(read)), None if None in flops else float(np.mean(flops)))


def means(values: Values) -> dict[str, float]:
    """Accuracy per benchmark."""
    return {benchmark: float(np.mean(list(of.values()))) for benchmark, of in values.items()}


def intervals(values: Values) -> dict[str, tuple[float, float]]:
    """The 95% interval of the accuracy per benchmark."""
    return {benchmark: bootstrap_interval(list(of.values())) for benchmark, of in values.items()}


def differences(rows: Mapping[str, Values], base: str) -> dict[str, tuple[float, float, float]]:
    """Difference of each row's mean over benchmarks to the base row's, with its 95% interval (paired bootstrap over
    the problems of each benchmark). Rows with other problems than the base are left out."""
    asked = {benchmark: list(of) for benchmark, of in rows[base].items()}
    alike = [name for name, values in rows.items() if name != base and _same(values, rows[base])]
    rng = np.random.default_rng(0)
    means, drawn = np.zeros(len(alike)), np.zeros((RESAMPLES, len(alike)))
    for benchmark, problems in asked.items():
        columns = [[rows[name][benchmark][i] for i in problems] for name in [base, *alike]]
        apart_PR = np.array(columns[1:]).reshape(len(alike), len(problems)).T - np.array(columns[0])[:, None]
        means += apart_PR.mean(axis=0) / len(asked)
        for k in range(RESAMPLES):  # a single array of all draws would not fit into memory
            times_P = np.bincount(rng.integers(0, len(problems), len(problems)), minlength=len(problems))
            drawn[k] += times_P.astype(float) @ apart_PR / len(problems) / len(asked)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0) if alike else ((), ())
    return {name: (float(m), float(a), float(b)) for name, m, a, b in zip(alike, means, low, high, strict=True)}


def _same(values: Values, base: Values) -> bool:
    return {name: of.keys() for name, of in values.items()} == {name: of.keys() for name, of in base.items()}
