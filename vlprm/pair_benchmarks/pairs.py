"""Common parts of pair benchmarks: two responses to one prompt, which of them people prefer, and how it is counted.

A benchmark must be read exactly as published, so a row that cannot be read is a UserError that names it. A missing
image only leaves its pair without a result (`vlprm.data.importing`, when it is opened).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

from vlprm.benchmarks.benchmark import Hub, RawItem, hub_rows
from vlprm.data.importing import ImageFolder, Record, refuse_repeated, required_field
from vlprm.errors import RecordError, UserError
from vlprm.schema import Problem

Preference = float | None  # 1: the right response is preferred, 0: the other, 0.5: a tie, None: no result
Source = str | bytes  # the name of an image file, or the file


@dataclass(frozen=True)
class Picture:
    """An image within a prompt or a response."""

    source: Source


Parts = tuple[str | Picture, ...]


@dataclass(frozen=True)
class Pair:
    """Two responses to one prompt, of which the one at the index `better` is the right one.

    The prompt's `images` come before the `question`. Pairs of the same prompt share a `problem_id`. `group` is the
    category that the benchmark reports by.
    """

    key: str
    problem_id: str
    question: str
    images: tuple[Source, ...]
    responses: tuple[Parts, Parts]
    better: int
    group: str

    def problem(self, images: tuple[bytes, ...]) -> Problem:
        """The prompt as a model sees it, with these images."""
        return Problem(self.key, self.group, self.question, images, None, "word")


@dataclass(frozen=True)
class Credit:
    """What a pair adds to the official accuracy, in [0, 1], and how often it counts (0: left out)."""

    value: float
    weight: float


@dataclass(frozen=True)
class PairBenchmark:
    """A pair benchmark.

    Args:
        name: its name in `PAIR_BENCHMARKS`.
        hub: its place on the Hub.
        rows: folder in the published layout -> rows and the file that has them.
        pair: (row, number from 1) -> pair; RecordError for a row of another layout.
        orders: in which order a judge is shown the responses: as given, in both orders, or in an order drawn for each
            answer.
        credit: the preferences of a pair, at least one -> what they add to the accuracy.
        no_result_rule: how the official accuracy counts what has no result.
    """

    name: str
    hub: Hub
    rows: Callable[[Path], tuple[list[Record], Path]]
    pair: Callable[[Record, int], Pair]
    orders: Literal["given", "both", "drawn"]
    credit: Callable[[Sequence[Preference]], Credit]
    no_result_rule: str


@dataclass(frozen=True)
class PairSet:
    """The pairs of a benchmark, the files that they were read from (none: the Hub), and what opens their images."""

    pairs: tuple[Pair, ...]
    files: tuple[Path, ...]
    open_images: Callable[[Sequence[Source]], tuple[bytes, ...]]

    def __post_init__(self) -> None:
        """UserError without pairs or with repeated keys."""
        place = str(self.files[0].parent) if self.files else "the Hub"
        refuse_repeated((pair.key for pair in self.pairs), "pairs", place)


def load_pairs(benchmark: PairBenchmark, folder: Path | None) -> PairSet:
    """The pairs of a folder in the published layout, or of the Hub (None). UserError names a malformed row."""
    rows: Sequence[RawItem]
    files: tuple[Path, ...]
    if folder is None:
        rows, files, place = hub_rows(benchmark.hub), (), f"{benchmark.hub.path} on the Hub"
    else:
        rows, file = benchmark.rows(folder)
        files, place = (file,), str(file)
    pairs = []
    for number, row in enumerate(rows, 1):
        try:
            pairs.append(benchmark.pair(dict(row), number))
        except RecordError as error:
            raise UserError(f"{place}, row {number}: {error}") from error
    images = ImageFolder(folder)
    return PairSet(tuple(pairs), files, lambda sources: images.load(list(sources)))


def pictures(parts: Parts) -> tuple[Source, ...]:
    """The images of a text, in order."""
    return tuple(part.source for part in parts if isinstance(part, Picture))


def said(parts: Parts, before: int) -> str:
    """The text, with `(image 3)` in the place of an image that a model sees as its third; `before` images precede."""
    text, numbers = "", count(before + 1)
    for part in parts:
        words = f"(image {next(numbers)})" if isinstance(part, Picture) else part
        apart = not text or text[-1].isspace() or not words or not (words[0].isalnum() or words[0] == "(")
        text += words if apart else f" {words}"
    return text


def required_text(record: Record, name: str) -> str:
    """A field that is a text with words. RecordError otherwise."""
    if not required_field(record, name, str).strip():
        raise RecordError(f"no_{name}", f"its {name} is empty; copy the benchmark again")
    return str(record[name])


def one_of(record: Record, name: str, allowed: Sequence[Any]) -> int:
    """The index of a field's value among those allowed. RecordError for another value."""
    value = record.get(name)
    if value not in allowed:
        known = " or ".join(map(repr, allowed))
        raise RecordError(f"{name}_value", f"its {name} is {value!r:.60}, not {known}; copy the published version")
    return allowed.index(value)
