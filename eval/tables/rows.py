"""Table rows, as formats print them and model cards publish them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vlprm.benchmarks.benchmark import Hub
from vlprm.search.tokens import Spend


@dataclass(frozen=True)
class Sample:
    """The problems behind a measured cell: their number, their dataset on the Hub, and whether they are the whole
    dataset."""

    problems: int
    hub: Hub | None
    whole: bool


@dataclass(frozen=True)
class TableRow:
    """One row: accuracy in [0, 1] per benchmark with its 95% interval, difference to the policy alone with its
    interval, candidates, and what was spent and seconds per problem. None: not measured, as in quoted rows, which also
    have no samples. `group`: the policy, between whose rows a table has no rule."""

    title: str
    cells: dict[str, float]
    difference: tuple[float, float, float] | None = None
    n: int | None = None
    spend: Spend | None = None
    seconds: float | None = None
    group: str = ""
    model: str = ""
    method: str = ""
    samples: Mapping[str, Sample] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
