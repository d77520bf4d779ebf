"""A row of a table: what layouts print, and what cards publish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vlprm.benchmarks.benchmark import Hub


@dataclass(frozen=True)
class Sample:
    """The problems whose mean a cell of ours is: how many, the 95% interval of the mean, where the Hub has them, and
    whether they are all that it has there."""

    problems: int
    interval: tuple[float, float]
    hub: Hub | None
    whole: bool


@dataclass(frozen=True)
class TableRow:
    """A row: shares by benchmark, the difference to the policy alone with its interval, candidates, and tokens and
    seconds a problem. None for what was not measured, as in a quoted row, which has no samples either."""

    title: str
    cells: dict[str, float]
    difference: tuple[float, float, float] | None = None
    n: int | None = None
    tokens: float | None = None
    seconds: float | None = None
    model: str = ""
    method: str = ""
    samples: Mapping[str, Sample] = field(default_factory=dict)
