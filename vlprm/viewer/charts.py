"""Line charts of a page: numbers become places in per cent, which `page/charts.html` draws at any width."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from vlprm.metrics import percent
from vlprm.viewer.names import selector_name

MOST_POINTS = 240  # points of a line; more are averaged

Tick = tuple[float, str]  # its place in per cent, and its text


class Scale(NamedTuple):
    """The values at the two ends of an axis, and the distance of its ticks."""

    low: float
    high: float
    step: float


PERCENTS: tuple[Tick, ...] = tuple((100.0 - share, str(share)) for share in (0, 25, 50, 75, 100))


@dataclass(frozen=True)
class Point:
    """A point in per cent from the left and from the top. `low` and `high` are the ends of its interval, `size` the
    radius of its dot, `text` its tooltip and `shown` the text next to it."""

    x: float
    y: float
    text: str
    shown: str = ""
    low: float | None = None
    high: float | None = None
    size: float = 3.5


@dataclass(frozen=True)
class Line:
    """A line with its name in the legend; `look` is its class in the style sheet."""

    name: str
    look: str
    points: tuple[Point, ...]
    dots: bool = True

    @property
    def path(self) -> str:
        """The points of the line, as SVG writes them."""
        return " ".join(f"{p.x:.2f},{p.y:.2f}" for p in self.points)

    @property
    def band(self) -> str:
        """The outline of the intervals; empty without them."""
        ends = [(p.x, p.low, p.high) for p in self.points if p.low is not None and p.high is not None]
        upper = [f"{x:.2f},{high:.2f}" for x, _, high in ends]
        return " ".join([*upper, *(f"{x:.2f},{low:.2f}" for x, low, _ in reversed(ends))])


@dataclass(frozen=True)
class Chart:
    """Lines over two named axes."""

    title: str
    x_name: str
    y_name: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]


def accuracy_chart(
    curves: Mapping[str, Mapping[str, Mapping[str, Any]]],
    title: str = "Accuracy by number of candidates",
    x_name: str = "n, candidates per problem",
) -> Chart | None:
    """Accuracy by a number, a line for each selector; None if there is only one number."""
    numbers = sorted({int(n) for curve in curves.values() for n in curve})
    if len(numbers) < 2:
        return None
    x = {n: 100 * i / (len(numbers) - 1) for i, n in enumerate(numbers)}
    looks = {"oracle": "oracle", "likeliest": "oracle", "majority": "vote"}
    lines = []
    for name, curve in curves.items():
        look = looks.get(name, "reward")
        points = [
            Point(
                x[int(n)], 100 - 100 * row["accuracy"],
                f"{selector_name(name)}, n = {n}: {percent(row['accuracy'])}%"
                f" ({percent(row['ci'][0])} to {percent(row['ci'][1])})",
                percent(row["accuracy"]) if look == "reward" else "",
                100 - 100 * row["ci"][0], 100 - 100 * row["ci"][1],
            )
            for n, row in curve.items()
        ]  # fmt: skip
        lines.append(Line(selector_name(name), look, tuple(points)))
    ticks = tuple((x[n], f"{n:,}") for n in numbers)
    return Chart(title, x_name, "accuracy, %", ticks, PERCENTS, tuple(lines))


def loss_chart(training: Mapping[str, Any]) -> Chart | None:
    """Loss and held-out loss by training step; None with fewer than two points."""
    series = [
        ("loss of training batches", "vote", training.get("loss", ())),
        ("loss on held-out problems", "reward", training.get("held_out", ())),
    ]
    return series_chart("Loss during training", ("optimizer step", "loss"), series, "step")


def series_chart(
    title: str, axes: tuple[str, str], series: Sequence[tuple[str, str, Sequence[Sequence[float]]]], unit: str
) -> Chart | None:
    """Lines of (x, y) points, each with its name and look; None with fewer than two places on the x axis. `unit` names
    a place in the tooltips."""
    shown = [(name, look, averaged(points)) for name, look, points in series]
    known = [point for _, _, points in shown for point in points]
    if len({x for x, _ in known}) < 2:
        return None
    across, up = scale([x for x, _ in known] + [0]), scale([y for _, y in known])
    lines = tuple(
        Line(
            name, look,
            tuple(Point(*place(point, across, up), f"{unit} {point[0]:,.0f}: {point[1]:.4g}") for point in points),
            dots=len(points) <= 24,
        )
        for name, look, points in shown if points
    )  # fmt: skip
    return Chart(title, *axes, ticks(across), ticks(up, upwards=True), lines)


def calibration_chart(reliability: Sequence[Sequence[float]], steps: str) -> Chart | None:
    """Share of right steps by predicted reward; None without steps. `steps` says which steps they are."""
    if not reliability:
        return None
    largest = max(count for _, _, count in reliability)
    points = tuple(
        Point(
            100 * mean, 100 - 100 * share,
            f"{count:,.0f} steps with a mean reward of {mean:.2f}: {percent(share)}% are right",
            size=2.5 + 4.5 * math.sqrt(count / largest),
        )
        for mean, share, count in reliability
    )  # fmt: skip
    ideal = Line("perfect calibration", "ideal", (Point(0, 100, ""), Point(100, 0, "")), dots=False)
    shown = Line(f"{steps} (larger dot: more steps)", "reward", points)
    ticks = tuple((100 * share, f"{share:g}") for share in (0, 0.25, 0.5, 0.75, 1))
    return Chart("Calibration of step rewards", "mean reward", "right steps, %", ticks, PERCENTS, (ideal, shown))


def averaged(points: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """The finite points in order, or means of neighbours where there are more than MOST_POINTS."""
    known = [(float(x), float(y)) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    size = -(-len(known) // MOST_POINTS)
    groups = [known[i : i + size] for i in range(0, len(known), max(size, 1))]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def scale(values: Sequence[float]) -> Scale:
    """The round numbers around the values, with four to six ticks of 1, 2 or 5 times a power of ten."""
    low, high = min(values), max(values)
    rough = ((high - low) or abs(high) or 1.0) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Scale(first * step, max(last, first + 1) * step, step)


def ticks(axis: Scale, upwards: bool = False) -> tuple[Tick, ...]:
    """The ticks of an axis, from the left, or upwards from the bottom."""
    count = round((axis.high - axis.low) / axis.step)
    found = [(100 * i / count, f"{axis.low + i * axis.step:,.6g}") for i in range(count + 1)]
    return tuple((100 - x if upwards else x, text) for x, text in found)


def place(point: tuple[float, float], across: Scale, up: Scale) -> tuple[float, float]:
    """The place of a point between the ends of the two axes."""
    x, y = point
    return 100 * (x - across.low) / (across.high - across.low), 100 - 100 * (y - up.low) / (up.high - up.low)
