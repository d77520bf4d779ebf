"""PRMBench (Song et al., arXiv 2501.03124; ssmisya/PRMBench, mr_eval/tasks/prmtest_classified): nine classes of errors
written into correct text solutions.

A folder holds JSON Lines files, one per class. A row has, among other fields,

    {"idx": "prm_test_p1_0", "classification": "circular", "modified_question": "...", "modified_process": ["...", ...],
     "error_steps": [3, 4], "original_question": "...", "original_process": ["...", ...]}

with `error_steps` counted from 1. A row's key is its class, `_` and its idx; of rows with the same key, the first
counts. Each row of the class `redundency` also gives its original solution, as class `correct`. Some error steps lie
beyond the last step; as in the official function, they are ignored.
"""

from __future__ import annotations

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
    json_lines,
    labelled,
    no_images,
    strings,
)
from vlprm.step_benchmarks.predictions import Prediction, of_calls

CATEGORIES = {
    "simplicity": ("redundency", "circular"),
    "soundness": ("counterfactual", "step_contradiction", "domain_inconsistency", "confidence"),
    "sensitivity": ("missing_condition", "deception", "multi_solutions"),
}
CLASSES = tuple(name for classes in CATEGORIES.values() for name in classes)
ORIGINAL = "correct"
UNDEFINED = -1.0  # the official function's value for a ratio with denominator 0


# --- rows


def load(folder: Path) -> LabelledSet:
    """Read the classes of a folder. UserError if there are none or a row is malformed."""
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise UserError(f"{folder} has no .jsonl files; give the folder of PRMBench's classes")
    rows: dict[str, LabelledSolution] = {}
    for path in files:
        for number, record in json_lines(path):
            try:
                for solution in _of_row(record):
                    rows.setdefault(solution.key, solution)
            except RecordError as error:
                raise UserError(f"{path}, line {number}: {error}") from error
    return LabelledSet(tuple(rows.values()), tuple(files), no_images)


def _of_row(record: Record) -> list[LabelledSolution]:
    name, idx = required_field(record, "classification", str), required_field(record, "idx", str)
    if name not in CLASSES:
        raise RecordError("class", f"its classification {name!r} is not one of {', '.join(CLASSES)}")
    wrong = required_field(record, "error_steps", list)
    if not all(type(step) is int for step in wrong):
        raise RecordError("error_steps", f"its error_steps {wrong} must be integers")
    rows = [_labelled(name, idx, record, "modified", wrong)]
    return [*rows, _labelled(ORIGINAL, idx, record, "original", [])] if name == "redundency" else rows


def _labelled(name: str, idx: str, record: Record, version: str, wrong: Sequence[int]) -> LabelledSolution:
    steps = strings(record, f"{version}_process")
    correct = [number not in wrong for number in range(1, len(steps) + 1)]
    question = required_field(record, f"{version}_question", str)
    return labelled(f"{name}_{idx}", question, (), steps, correct, name)


def parse_prediction(record: Record, solution: LabelledSolution) -> Prediction:
    """A line of the official evaluation: `scores.step_level_validity_labels`, one truth value per step. In the two
    redundancy classes, `step_level_redundancy_labels` are used instead if present; they say the opposite."""
    if record.get("validity") is False:
        return Prediction(no_result="invalid")
    scores = required_field(record, "scores", dict)
    redundant = scores.get("step_level_redundancy_labels")
    if solution.group in CATEGORIES["simplicity"] and isinstance(redundant, list):
        return of_calls([not label for label in redundant], len(solution.steps))
    return of_calls(scores.get("step_level_validity_labels"), len(solution.steps))


# --- measures


def measured(solutions: Sequence[LabelledSolution], calls: Sequence[Calls]) -> dict[str, Any]:
    """The official function's numbers, as shares: overall without the originals, per class, and for the three
    categories (plain means of their classes) if all their classes are present. A ratio with denominator 0 is -1."""
    judged = [(s, called) for s, called in zip(solutions, calls, strict=True) if called is not None]
    originals = {s.key: _share(called) for s, called in judged if s.group == ORIGINAL}
    changed = [(s, called) for s, called in judged if s.group != ORIGINAL]
    by_group = {
        name: _numbers([pair for pair in judged if pair[0].group == name], originals)
        for name in dict.fromkeys(s.group for s in solutions)
    }
    categories = {
        category: sum(by_group[name]["prmscore"] for name in classes) / len(classes)
        for category, classes in CATEGORIES.items()
        if set(classes) <= set(by_group)
    }
    return {**_numbers(changed, originals), **categories, "by_group": by_group}


def _numbers(judged: Sequence[tuple[LabelledSolution, Sequence[bool]]], originals: dict[str, float]) -> dict[str, Any]:
    pairs = [pair for s, called in judged for pair in zip(s.correct, called, strict=True)]
    right, wrong = ([called for correct, called in pairs if correct is kind] for kind in (True, False))
    tp, fp, tn, fn = sum(right), sum(wrong), len(wrong) - sum(wrong), len(right) - sum(right)
    precision, recall, f1 = _f1(tp, fp, fn)
    negative_precision, negative_recall, negative_f1 = _f1(tn, fn, fp)
    only_right = {s.group for s, _ in judged} <= {"multi_solutions", ORIGINAL}  # these groups have no wrong steps
    firsts = [not called[s.correct.index(False)] for s, called in judged if False in s.correct]
    return {
        "prmscore": f1 if only_right else (f1 + negative_f1) / 2,
        "correct_step_acc": _ratio(tp, len(right)),
        "wrong_step_acc": _ratio(tn, len(wrong)),
        "total_step_acc": _ratio(tp + tn, len(pairs)),
        "first_error_acc": _ratio(sum(firsts), len(firsts)),
        "similarity": _similarity(judged, originals),
        "precision": precision, "recall": recall, "f1": f1,
        "negative_precision": negative_precision, "negative_recall": negative_recall, "negative_f1": negative_f1,
        "steps": len(pairs),
    }  # fmt: skip


def _similarity(judged: Sequence[tuple[LabelledSolution, Sequence[bool]]], originals: dict[str, float]) -> float:
    """Mean distance between the shares of steps called valid in a solution and in its original. As in the official
    function, smaller means more similar, and originals without a step called valid are ignored."""
    gaps = []
    for solution, called in judged:
        original = originals.get(solution.key.replace(solution.group, ORIGINAL, 1))
        if original and solution.group != ORIGINAL:
            gaps.append(abs(_share(called) - original))
    return _ratio(sum(gaps), len(gaps))


def _share(called: Sequence[bool]) -> float:
    return _ratio(sum(called), len(called))


def _f1(hits: int, false_alarms: int, misses: int) -> tuple[float, float, float]:
    precision, recall = _ratio(hits, hits + false_alarms), _ratio(hits, hits + misses)
    return precision, recall, _ratio(2 * precision * recall, precision + recall)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else UNDEFINED


BENCHMARK = StepBenchmark(
    load,
    measured,
    "prmscore",
    "its steps are left out (a file that lacks five lines is refused)",
    parse_prediction,
    "idx",
)
