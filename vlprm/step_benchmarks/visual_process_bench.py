"""VisualProcessBench (Wang et al., arXiv 2503.10291; OpenGVLab/VisualProcessBench): human labels of the steps that five
models wrote for image problems from five sources.

A folder holds JSON Lines files (as published: `test.jsonl`) and the images that they name. A row has

    {"image": ["images/a.png"], "question": "...", "answer": "...", "policy_model": "...", "data_source": "MathVision",
     "response": {"steps": ["...", ...], "process_correctness": [1, -1, 0, ...]}}

with 1 for correct, -1 for wrong, and 0 for neutral, which is ignored. Rows have no ids: a key is file and line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlprm.data.importing import ImageFolder, Record, required_field
from vlprm.errors import RecordError, UserError
from vlprm.metrics import class_f1s
from vlprm.step_benchmarks.labelled import (
    Calls,
    LabelledSet,
    LabelledSolution,
    StepBenchmark,
    labelled,
    read_rows,
    strings,
)

LABELS = {1: True, -1: False, 0: None}
# Here, images come before the question. One published question has a mark that is not closed.
_IMAGE_MARK = re.compile(r"<image\s*\d*>|<image\s*\d+")


def load(folder: Path) -> LabelledSet:
    """Read the rows of a folder. UserError if there are none or a row is malformed."""
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise UserError(f"{folder} has no .jsonl files; give the folder of VisualProcessBench")
    solutions = read_rows(files, _labelled)
    return LabelledSet(tuple(solutions), tuple(files), lambda names: ImageFolder(folder).load(list(names)))


def _labelled(record: Record, place: str) -> LabelledSolution:
    response = required_field(record, "response", dict)
    marks = required_field(response, "process_correctness", list)
    if not all(mark in (1, -1, 0) for mark in marks):
        raise RecordError("label_value", f"its process_correctness {marks} has labels other than 1, -1 and 0")
    question = _IMAGE_MARK.sub("", required_field(record, "question", str)).strip()
    source = required_field(record, "data_source", str)
    correct = [LABELS[mark] for mark in marks]
    return labelled(place, question, strings(record, "image"), strings(response, "steps"), correct, source)


def measured(solutions: Sequence[LabelledSolution], calls: Sequence[Calls]) -> dict[str, Any]:
    """Macro F1 (mean of the F1 of correct and of wrong steps) over all steps, and over sources: weighted by their
    labelled steps, and unweighted. JinYuanLi0012/Balanced-Info-MPRM, eval/prm, reports the weighted one first."""
    by_group = {}
    for source in dict.fromkeys(solution.group for solution in solutions):
        row = _macro_f1([pair for pair in zip(solutions, calls, strict=True) if pair[0].group == source])
        if row["steps"]:
            by_group[source] = row
    steps = sum(row["steps"] for row in by_group.values())
    weighted = sum(row["macro_f1"] * row["steps"] for row in by_group.values())
    plain = sum(row["macro_f1"] for row in by_group.values())
    return {
        **_macro_f1(list(zip(solutions, calls, strict=True))),
        "macro_f1_by_steps": weighted / steps if steps else 0.0,
        "macro_f1_by_source": plain / len(by_group) if by_group else 0.0,
        "by_group": by_group,
    }


def _macro_f1(pairs: Sequence[tuple[LabelledSolution, Calls]]) -> dict[str, Any]:
    marks = [
        (called, correct)
        for solution, calls in pairs if calls is not None
        for called, correct in zip(calls, solution.correct, strict=True) if correct is not None
    ]  # fmt: skip
    f1_correct, f1_error = class_f1s([called for called, _ in marks], [correct for _, correct in marks])
    macro_f1 = (f1_correct + f1_error) / 2
    return {"macro_f1": macro_f1, "f1_correct": f1_correct, "f1_error": f1_error, "steps": len(marks)}


BENCHMARK = StepBenchmark(load, measured, "macro_f1", "its steps are left out")
