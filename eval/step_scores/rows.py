"""Which rows of a benchmark are measured, and the intervals of their measures over problems."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from vlprm.errors import UserError

RESAMPLES = 200


class Grouped(Protocol):
    """A row of a benchmark: rows of a problem are correlated, and groups are reported."""

    @property
    def problem_id(self) -> str: ...

    @property
    def group(self) -> str: ...


R = TypeVar("R", bound=Grouped)


def chosen(rows: Sequence[R], groups: Sequence[str], count: int) -> list[R]:
    """The first `count` rows (0: all) of the groups (none: all), taken in turn; in the benchmark's order."""
    known = dict.fromkeys(row.group for row in rows)
    if unknown := set(groups) - set(known):
        raise UserError(f"unknown group {min(unknown)!r}; the data has {', '.join(known)}")
    seen: Counter[str] = Counter()
    turns = []
    for i, row in enumerate(rows):
        if not groups or row.group in groups:
            turns.append((seen[row.group], i))
            seen[row.group] += 1
    return [rows[i] for i in sorted(i for _, i in sorted(turns)[: count or None])]


def intervals(rows: Sequence[Grouped], measure: Callable[[Sequence[int]], dict[str, float]]) -> dict[str, list[float]]:
    """95% percentile bootstrap intervals of `measure`, a function of row indices. Whole problems are resampled, since
    rows of one problem are correlated."""
    of_problem: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        of_problem[row.problem_id].append(i)
    problems, rng = list(of_problem.values()), np.random.default_rng(0)
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(RESAMPLES):
        drawn = measure([i for n in rng.integers(0, len(problems), len(problems)) for i in problems[n]])
        for name, value in drawn.items():
            if isinstance(value, float) and not math.isnan(value):
                found[name].append(value)
    return {name: np.quantile(values, [0.025, 0.975]).tolist() for name, values in found.items()}
