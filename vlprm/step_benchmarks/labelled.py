"""What every step benchmark is made of: solutions with labelled steps, and how its files are read.

A benchmark that is not as it was published gives no number: a row that cannot be read is a ValueError that names it. An
image that is not there is another matter (`foreign.Dropped`, when it is opened): its solutions have no result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlprm.data.importing import Record, required_field
from vlprm.errors import RecordError
from vlprm.runs.journal import placed_lines
from vlprm.schema import Problem, Step
from vlprm.step_benchmarks.predictions import Prediction
from vlprm.steps import parse_step

Calls = Sequence[bool] | None  # which steps a model calls correct; None: no result


@dataclass(frozen=True)
class LabelledSolution:
    """One solution, and of each step whether it is correct: None has no label (neutral, or not looked at).

    `images` are names that `LabelledSet.open_images` opens. Solutions of one question about the same images share a
    `problem_id`. `group` is the subset, class or source that the benchmark reports by.
    """

    key: str
    problem_id: str
    question: str
    images: tuple[str, ...]
    steps: tuple[Step, ...]
    correct: tuple[bool | None, ...]
    group: str

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.correct):
            raise ValueError(
                f"{self.key} has {len(self.correct)} labels for {len(self.steps)} steps; copy the benchmark again"
            )


@dataclass(frozen=True)
class LabelledSet:
    """A benchmark in memory, without its images; and the files that it was read from."""

    solutions: tuple[LabelledSolution, ...]
    files: tuple[Path, ...]
    open_images: Callable[[Sequence[str]], tuple[bytes, ...]]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for solution in self.solutions:
            if solution.key in seen:
                raise ValueError(f"{self.files[0].parent} has two solutions {solution.key!r}; copy the benchmark again")
            seen.add(solution.key)
        if not self.solutions:
            raise ValueError(f"{self.files[0].parent} has no solutions; copy the benchmark again")


@dataclass(frozen=True)
class StepBenchmark:
    """load(folder)                 -> its solutions, from a folder in the layout in which it is published
    measured(solutions, calls)      -> the official measures: a dict of numbers, with those of each group in `by_group`
    main                            -> the measure of a group that tables show
    no_result_rule                  -> what the official measures make of a solution without a result
    parse_prediction(record, solution) -> a line of stored verdicts in the benchmark's own layout; None: no layout
    key_field                       -> the field that names the solution in such a line
    """

    load: Callable[[Path], LabelledSet]
    measured: Callable[[Sequence[LabelledSolution], Sequence[Calls]], dict[str, Any]]
    main: str
    no_result_rule: str
    parse_prediction: Callable[[Record, LabelledSolution], Prediction] | None = None
    key_field: str = "key"


def problem_of(solution: LabelledSolution, images: tuple[bytes, ...]) -> Problem:
    """The problem as a model is shown it, with these images."""
    return Problem(solution.problem_id, solution.group, solution.question, images, None, "word")


def problem_id(question: str, images: Sequence[str]) -> str:
    return hashlib.sha256("\0".join([question, *images]).encode()).hexdigest()[:16]


def labelled(
    key: str, question: str, images: Sequence[str], steps: Sequence[str], correct: Sequence[bool | None], group: str
) -> LabelledSolution:
    made = tuple(map(parse_step, steps))
    return LabelledSolution(key, problem_id(question, images), question, tuple(images), made, tuple(correct), group)


def no_images(names: Sequence[str]) -> tuple[bytes, ...]:
    """For benchmarks of texts alone."""
    assert not names
    return ()


def read_rows(files: Iterable[Path], made: Callable[[Record, str], LabelledSolution]) -> list[LabelledSolution]:
    """The solutions of files of JSON lines; `made` is given a row and its place, such as `test/7`. ValueError names
    the row that is not of the format."""
    solutions = []
    for path in files:
        for number, record in json_lines(path):
            try:
                solutions.append(made(record, f"{path.stem}/{number}"))
            except RecordError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
    return solutions


def json_lines(path: Path) -> Iterator[tuple[int, Record]]:
    """The objects of a file, one a line, each with the line's number. ValueError names a line that is none: a last one
    that was cut short is seen so, since half an object is no JSON."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}; give the path of one")
    for number, (_, line) in enumerate(placed_lines(path), 1):
        if line.strip():
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number} is not JSON (cut short?); copy the file again") from error
            if not isinstance(record, dict):
                raise ValueError(f"{path}, line {number} is no JSON object; copy the file again")
            yield number, record


def found(folder: Path, names: Sequence[str]) -> list[Path]:
    """The files of these names that a folder has. ValueError where it has none of them."""
    files = [folder / name for name in names if (folder / name).is_file()]
    if not files:
        raise ValueError(f"{folder} has no file {' or '.join(names)}; give the folder of the benchmark")
    return files


def strings(record: Record, name: str) -> list[str]:
    """A field that is a list of texts."""
    values = required_field(record, name, list)
    if not all(isinstance(value, str) for value in values):
        raise RecordError(f"{name}_type", f"its {name} has an item that is no text")
    return values
