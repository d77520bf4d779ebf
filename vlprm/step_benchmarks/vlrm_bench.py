"""VLRMBench (Ruan et al., arXiv 2503.07478; JCruan519/VLRMBench): wrong steps written into correct solutions of image
problems. Only the tasks with a label per step are here: location errors and image reference errors.

A folder holds `location_error.jsonl`, `image_ref_error.jsonl`, or one of them, and `images/`. A row has

    {"id": "4daf...", "image": ["MathVista/93.jpg"], "question": "...", "task_gt": [0, 0, 1, ...],
     "reasoning_error": "STEP1: ...\\nSTEP2: ...", "step_list": [the original, correct solution], ...}

with 1 for a wrong step. The labels belong to the steps of `reasoning_error`; in `step_list` every step is correct.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlprm.data.importing import ImageFolder, Record, required_field
from vlprm.errors import RecordError
from vlprm.metrics import class_f1s
from vlprm.step_benchmarks.labelled import (
    Calls,
    LabelledSet,
    LabelledSolution,
    StepBenchmark,
    found,
    labelled,
    read_rows,
    strings,
)
from vlprm.step_benchmarks.predictions import Prediction, of_calls

TASKS = ("location_error", "image_ref_error")
_STEP = re.compile(r"(?:^|\n)\s*(?=STEP\s*\d+\s*:)")


def load(folder: Path) -> LabelledSet:
    """Read the tasks of a folder. UserError if there are none or a row is malformed."""
    files = found(folder, [f"{task}.jsonl" for task in TASKS])
    solutions = read_rows(files, lambda record, place: _labelled(record, place.partition("/")[0]))
    return LabelledSet(tuple(solutions), tuple(files), lambda names: ImageFolder(folder / "images").load(list(names)))


def _labelled(record: Record, task: str) -> LabelledSolution:
    steps = [text for text in _STEP.split(required_field(record, "reasoning_error", str)) if text.strip()]
    marks = required_field(record, "task_gt", list)
    if not all(mark in (0, 1) for mark in marks):
        raise RecordError("label_value", f"its task_gt {marks} has labels other than 0 and 1")
    question, images = required_field(record, "question", str), strings(record, "image")
    return labelled(required_field(record, "id", str), question, images, steps, [mark == 0 for mark in marks], task)


def parse_prediction(record: Record, solution: LabelledSolution) -> Prediction:
    """`{"id": ..., "prediction": [0, 1, ...]}`, 1 for a step called wrong; null counts as no result."""
    called = of_calls(record.get("prediction"), len(solution.steps))
    return called if called.calls is None else Prediction(calls=tuple(not wrong for wrong in called.calls))


def measured(solutions: Sequence[LabelledSolution], calls: Sequence[Calls]) -> dict[str, Any]:
    """Per task: F1 of wrong steps (`F1_pos`), F1 of correct steps (`F1_neg`), and their mean with crossed weights
    (`F1_w`): each is weighted by the other's share of the steps."""
    tasks = dict.fromkeys(solution.group for solution in solutions)
    pairs = list(zip(solutions, calls, strict=True))
    return {"by_group": {task: _f1s([pair for pair in pairs if pair[0].group == task]) for task in tasks}}


def _f1s(pairs: Sequence[tuple[LabelledSolution, Calls]]) -> dict[str, float]:
    correct = [mark is True for solution, _ in pairs for mark in solution.correct]
    called = [mark for solution, calls in pairs for mark in (calls or [True] * len(solution.steps))]
    f1_correct, f1_error = class_f1s(called, correct)
    wrong = correct.count(False)
    share = wrong / len(correct)
    return {
        "F1_pos": f1_error, "F1_neg": f1_correct, "F1_w": (1 - share) * f1_error + share * f1_correct,
        "steps": len(correct), "error_steps": wrong,
    }  # fmt: skip


BENCHMARK = StepBenchmark(
    load, measured, "F1_w", "its steps count as called correct (filled with 0)", parse_prediction, "id"
)
