"""What predictions of labelled steps are worth: the benchmark's own measures, and those that need no threshold."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from vlprm.metrics import auroc, average_precision, best_threshold, bootstrap_interval
from vlprm.step_benchmarks.labelled import Calls, LabelledSolution, StepBenchmark
from vlprm.step_benchmarks.predictions import Prediction
from vlprm.viewer.tables import plain_table


@dataclass(frozen=True)
class Threshold:
    """A step with this reward or more is called correct."""

    value: float
    chosen_on: str


FIXED = Threshold(0.5, "nothing, fixed in advance")


def measured_all(
    benchmark: StepBenchmark,
    solutions: Sequence[LabelledSolution],
    predictions: Sequence[Prediction],
    thresholds: Sequence[Threshold],
) -> dict[str, Any]:
    """As it stands in `results.json`. `official` has an entry for each threshold, one for verdicts that were stored
    without rewards. Where some solutions have no result, an entry also says what the measures would be were all of
    their steps called falsely: no failure can have made them look better than that."""
    lost = [s for s, p in zip(solutions, predictions, strict=True) if p.no_result]
    results: dict[str, Any] = {
        "solutions": len(solutions),
        "steps": sum(len(s.steps) for s in solutions),
        "labelled_steps": sum(mark is not None for s in solutions for mark in s.correct),
        "no_result": {
            "solutions": len(lost),
            "steps": sum(len(s.steps) for s in lost),
            "causes": dict(Counter(p.no_result for p in predictions if p.no_result)),
            "official_rule": benchmark.no_result_rule,
        },
    }
    rewards, correct = _known(solutions, predictions)
    if not rewards and any(p.calls is not None for p in predictions):
        thresholds = [Threshold(math.nan, "nothing, as stored")]
    results["official"] = [_official(benchmark, solutions, predictions, threshold) for threshold in thresholds]
    if rewards:
        results["rewards"] = reward_measures(solutions, predictions)
        value, macro_f1 = best_threshold(rewards, correct)
        results["threshold_for_other_data"] = {"threshold": value, "macro_f1_here": macro_f1}
    return results


def _official(
    benchmark: StepBenchmark,
    solutions: Sequence[LabelledSolution],
    predictions: Sequence[Prediction],
    threshold: Threshold,
) -> dict[str, Any]:
    calls: list[Calls] = [None if p.no_result else p.called(threshold.value) for p in predictions]
    row = {
        "threshold": None if math.isnan(threshold.value) else threshold.value,
        "chosen_on": threshold.chosen_on,
        "measures": benchmark.measured(solutions, calls),
    }
    if None in calls:
        pairs = list(zip(solutions, calls, strict=True))
        if having := [pair for pair in pairs if pair[1] is not None]:
            row["results_alone"] = benchmark.measured(*zip(*having, strict=True))
        falsely = [[mark is False for mark in s.correct] if called is None else called for s, called in pairs]
        row["were_no_results_false"] = benchmark.measured(solutions, falsely)
    return row


def reward_measures(solutions: Sequence[LabelledSolution], predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Of the labelled steps that have a reward. `average_precision_error` is that of finding wrong steps by a low one.

    Within-problem accuracy: how often, of two solutions of one problem, the one whose steps are all correct has a
    larger least reward than one with a wrong step. A model that only knows which problems are hard has a half there.
    """
    rewards, correct = map(np.array, _known(solutions, predictions))
    measures = {
        "steps": len(rewards),
        "share_correct": float(correct.mean()),
        "auroc": auroc(rewards, correct),
        "average_precision_error": average_precision(-rewards, ~correct),
    }
    if within := _within(solutions, predictions):
        measures |= {
            "within_problem_accuracy": float(np.mean(within)),
            "within_problem_ci": list(bootstrap_interval(within)),
            "mixed_problems": len(within),
        }
    return {name: value for name, value in measures.items() if value == value}  # NaN: only one kind of step


def _known(solutions: Sequence[LabelledSolution], predictions: Sequence[Prediction]) -> tuple[list[float], list[bool]]:
    pairs = [
        pair
        for s, p in zip(solutions, predictions, strict=True) if p.rewards is not None
        for pair in zip(p.rewards, s.correct, strict=True)
    ]  # fmt: skip
    known = [(reward, mark) for reward, mark in pairs if mark is not None]
    return [reward for reward, _ in known], [mark for _, mark in known]


def _within(solutions: Sequence[LabelledSolution], predictions: Sequence[Prediction]) -> list[float]:
    """A number a problem that has both kinds of solutions."""
    of_problem: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for s, p in zip(solutions, predictions, strict=True):
        if p.rewards and (False in s.correct or all(s.correct)):
            of_problem[s.problem_id].append((min(p.rewards), all(s.correct)))
    values = [auroc(*zip(*pairs, strict=True)) for pairs in of_problem.values()]
    return [value for value in values if not math.isnan(value)]


# --- tables


def print_results(results: dict[str, Any], main: str) -> None:
    console, none = Console(), results["no_result"]
    console.print(f"{results['benchmark']}, images {results['images']}: {results['solutions']} solutions")
    if causes := none["causes"]:
        counts = ", ".join(f"{cause} {count}" for cause, count in causes.items())
        console.print(f"{none['solutions']} without a result ({counts}); official rule: {none['official_rule']}")
    for row in results["official"]:
        threshold = "as stored" if row["threshold"] is None else f"from a reward of {row['threshold']:.3f} on"
        console.print(f"Steps are called correct {threshold} (chosen on {row['chosen_on']})")
        console.print(_official_table(row, main))
    if "rewards" in results:
        console.print(_reward_table(results["rewards"]))


READINGS = {  # of solutions without a result
    "measures": "official",
    "results_alone": "those with a result",
    "were_no_results_false": "were no results false",
}


def _official_table(row: dict[str, Any], main: str) -> Table:
    readings = [name for name in READINGS if name in row]
    table = plain_table("Official measures", "measure", *(READINGS[name] for name in readings))
    for name in row["measures"]:
        if name != "by_group":
            table.add_row(name, *(_shown(row[reading][name]) for reading in readings))
    for group in row["measures"]["by_group"]:
        of_group = [row[reading]["by_group"].get(group) for reading in readings]
        table.add_row(f"{main}, {group}", *("none" if found is None else _shown(found[main]) for found in of_group))
    return table


def _reward_table(measures: dict[str, Any]) -> Table:
    table = plain_table("Rewards, without a threshold", "measure", "value")
    for name, value in measures.items():
        table.add_row(name, " to ".join(map(_shown, value)) if isinstance(value, list) else _shown(value))
    return table


def _shown(value: float) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
