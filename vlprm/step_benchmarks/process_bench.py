"""ProcessBench (Zheng et al., arXiv 2412.06559; QwenLM/ProcessBench): find the first wrong step of a text solution.

A folder holds `gsm8k.json`, `math.json`, `olympiadbench.json`, `omnimath.json`, or some of them: lists of objects

    {"id": "gsm8k-0", "problem": "...", "steps": ["...", ...], "label": 2, "final_answer_correct": false, ...}

whose `label` is the index of the first wrong step, or -1 if there is none. Steps after it have no label.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlprm.data.importing import Record, required_field
from vlprm.errors import RecordError, UserError
from vlprm.step_benchmarks.labelled import (
    Calls,
    LabelledSet,
    LabelledSolution,
    StepBenchmark,
    found,
    labelled,
    no_images,
    strings,
)
from vlprm.step_benchmarks.predictions import Prediction, of_calls

SUBSETS = ("gsm8k", "math", "olympiadbench", "omnimath")


def load(folder: Path) -> LabelledSet:
    """Read the subsets of a folder. UserError if there are none or an item is malformed."""
    files = found(folder, [f"{subset}.json" for subset in SUBSETS])
    return LabelledSet(tuple(solution for path in files for solution in _subset(path)), tuple(files), no_images)


def _subset(path: Path) -> list[LabelledSolution]:
    try:
        records = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is not JSON (cut short?); copy the file again") from error
    if not isinstance(records, list):
        raise UserError(f"{path} is not a list of solutions; copy the file again")
    solutions = []
    for number, record in enumerate(records, 1):
        try:
            solutions.append(_labelled(record, path.stem))
        except RecordError as error:
            raise UserError(f"{path}, item {number}: {error}") from error
    return solutions


def _labelled(record: Record, subset: str) -> LabelledSolution:
    steps, label = strings(record, "steps"), required_field(record, "label", int)
    if not -1 <= label < len(steps):
        raise RecordError("label_value", f"its label {label} is neither -1 nor one of its {len(steps)} steps")
    right = len(steps) if label < 0 else label
    correct = [True] * right + [False] * (label >= 0) + [None] * (len(steps) - right - 1)
    return labelled(
        required_field(record, "id", str), required_field(record, "problem", str), (), steps, correct, subset
    )


def parse_prediction(record: Record, solution: LabelledSolution) -> Prediction:
    """`{"id": ..., "prediction": 2}`: the first step called wrong, or -1. null, and a step beyond the solution,
    count as a missing result; the official measure treats both alike."""
    first, steps = record.get("prediction"), len(solution.steps)
    if first is None:
        return Prediction(no_result="null")
    if type(first) is not int:
        raise RecordError("prediction_type", f"its prediction {first!r} is not an integer")
    if not -1 <= first < steps:
        return Prediction(no_result="no_such_step")
    return of_calls([k != first for k in range(steps)], steps)


def first_wrong(marks: Sequence[bool | None]) -> int:
    """Index of the first False; -1 if there is none."""
    return next((k for k, mark in enumerate(marks) if mark is False), -1)


def measured(solutions: Sequence[LabelledSolution], calls: Sequence[Calls]) -> dict[str, Any]:
    """Per subset, in per cent: how often the first wrong step is found (`error_acc`), how often a correct solution is
    accepted (`correct_acc`), and their harmonic mean (`f1`); and the mean F1 over subsets."""
    hits: dict[str, dict[bool, list[bool]]] = {}
    for solution, called in zip(solutions, calls, strict=True):
        first = first_wrong(solution.correct)
        hit = called is not None and first_wrong(called) == first
        hits.setdefault(solution.group, {True: [], False: []})[first >= 0].append(hit)
    by_group = {subset: _f1(found[True], found[False]) for subset, found in hits.items()}
    return {"f1_mean": sum(row["f1"] for row in by_group.values()) / len(by_group), "by_group": by_group}


def _f1(error: list[bool], correct: list[bool]) -> dict[str, float]:
    error_acc, correct_acc = (100 * sum(hits) / len(hits) if hits else 0.0 for hits in (error, correct))
    both = error_acc + correct_acc
    return {
        "n": len(error) + len(correct), "n_error": len(error), "n_correct": len(correct),
        "error_hits": sum(error), "correct_hits": sum(correct), "error_acc": error_acc, "correct_acc": correct_acc,
        "f1": 2 * error_acc * correct_acc / both if both else 0.0,
    }  # fmt: skip


BENCHMARK = StepBenchmark(load, measured, "f1", "it counts as a miss, in the denominator", parse_prediction, "id")
