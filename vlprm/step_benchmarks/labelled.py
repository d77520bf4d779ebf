"""Common parts of step benchmarks: solutions with labelled steps, and how their files are read.

A benchmark must be read exactly as published, so a row that cannot be read is a UserError that names it. A missing
image only leaves its solutions without a result (`vlprm.data.importing`, when it is opened).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlprm.data.importing import Record, refuse_repeated, required_field
from vlprm.errors import RecordError, UserError
from vlprm.runs.journal import placed_lines
from vlprm.schema import Problem, Step
from vlprm.step_benchmarks.predictions import Prediction
from vlprm.steps import parse_step

Calls = Sequence[bool] | None  # which steps a model calls correct; None: no result


@dataclass(frozen=True)
class LabelledSolution:
    """One solution, and whether each step is correct (None: no label, because it is neutral or was not annotated).

    `images` are names for `LabelledSet.open_images`. Solutions of the same question and images share a `problem_id`.
    `group` is the subset, class or source that the benchmark reports by.
    """

    key: str
    problem_id: str
    question: str
    images: tuple[str, ...]
    steps: tuple[Step, ...]
    correct: tuple[bool | None, ...]
    group: str

    def __post_init__(self) -> None:
        """UserError unless there is one label per step."""
        if len(self.steps) != len(self.correct):
            raise UserError(
                f"{self.key} has {len(self.correct)} labels for {len(self.steps)} steps; copy the benchmark again"
            )


@dataclass(frozen=True)
class LabelledSet:
    """A benchmark in memory, without its images, and the files that it was read from."""

    solutions: tuple[LabelledSolution, ...]
    files: tuple[Path, ...]
    open_images: Callable[[Sequence[str]], tuple[bytes, ...]]

    def __post_init__(self) -> None:
        """UserError without solutions or with repeated keys."""
        refuse_repeated((solution.key for solution in self.solutions), "solutions", str(self.files[0].parent))


@dataclass(frozen=True)
class StepBenchmark:
    """A step benchmark.

    load(folder)                    -> its solutions, from a folder in the published layout
    measured(solutions, calls)      -> the official measures: a dict of numbers, with those of each group in `by_group`
    main                            -> the measure of a group that tables show
    no_result_rule                  -> how the official measures count a solution without a result
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
    """The problem of a solution, with these images, as a model sees it."""
    return Problem(solution.problem_id, solution.group, solution.question, images, None, "word")


def problem_id(question: str, images: Sequence[str]) -> str:
    """A hash of the question and the image names."""
    return hashlib.sha256("\0".join([question, *images]).encode()).hexdigest()[:16]


def labelled(
    key: str, question: str, images: Sequence[str], steps: Sequence[str], correct: Sequence[bool | None], group: str
) -> LabelledSolution:
    """Build a `LabelledSolution` from the texts of its steps."""
    made = tuple(map(parse_step, steps))
    return LabelledSolution(key, problem_id(question, images), question, tuple(images), made, tuple(correct), group)


def no_images(names: Sequence[str]) -> tuple[bytes, ...]:
    """`open_images` of text-only benchmarks."""
    assert not names
    return ()


def read_rows(files: Iterable[Path], made: Callable[[Record, str], LabelledSolution]) -> list[LabelledSolution]:
    """The solutions of JSON Lines files; `made` gets a row and its place, such as `test/7`. UserError names a
    malformed row."""
    solutions = []
    for path in files:
        for number, record in json_lines(path):
            try:
                solutions.append(made(record, f"{path.stem}/{number}"))
            except RecordError as error:
                raise UserError(f"{path}, line {number}: {error}") from error
    return solutions


def json_lines(path: Path) -> Iterator[tuple[int, Record]]:
    """The objects of a JSON Lines file with their line numbers. UserError names a malformed line, including a last
    line that was cut short."""
    if not path.is_file():
        raise UserError(f"there is no file {path}; check the path")
    for number, (_, line) in enumerate(placed_lines(path), 1):
        if line.strip():
            try:
                record = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}, line {number} is not JSON (cut short?); copy the file again") from error
            if not isinstance(record, dict):
                raise UserError(f"{path}, line {number} is not a JSON object; copy the file again")
            yield number, record


def found(folder: Path, names: Sequence[str]) -> list[Path]:
    """The files of these names in a folder. UserError if it has none of them."""
    files = [folder / name for name in names if (folder / name).is_file()]
    if not files:
        raise UserError(f"{folder} has no file {' or '.join(names)}; give the folder of the benchmark")
    return files


def strings(record: Record, name: str) -> list[str]:
    """A field that is a list of strings. RecordError otherwise."""
    values = required_field(record, name, list)
    if not all(isinstance(value, str) for value in values):
        raise RecordError(f"{name}_type", f"its {name} has an item that is not a string")
    return values
