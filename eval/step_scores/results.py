"""Measures of predictions for labelled steps: the benchmark's own, and threshold-free ones."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from eval.step_scores.rows import intervals
from vlprm.metrics import auroc, average_precision, best_threshold, bootstrap_interval
from vlprm.step_benchmarks.labelled import Calls, LabelledSolution, StepBenchmark
from vlprm.step_benchmarks.predictions import Prediction
from vlprm.viewer.tables import plain_table


@dataclass(frozen=True)
class Threshold:
    """Steps with at least this reward are called correct."""

    value: float
    origin: str


FIXED = Threshold(0.5, "fixed in advance")
NO_THRESHOLD = Threshold(math.nan, "stored verdicts")


def measured_all(
    benchmark: StepBenchmark,
    solutions: Sequence[LabelledSolution],
    predictions: Sequence[Prediction],
    thresholds: Sequence[Threshold],
) -> dict[str, Any]:
    """The content of `results.json`. `official` has one entry per threshold, or a single one for stored verdicts
    without rewards."""
    rewards, correct = known_steps(solutions, predictions)
    if not rewards and any(p.calls is not None for p in predictions):
        thresholds = [NO_THRESHOLD]
    results = {
        "solutions": len(solutions),
        "steps": sum(len(s.steps) for s in solutions),
        "labelled_steps": sum(mark is not None for s in solutions for mark in s.correct),
        "no_result": {**_no_result(solutions, predictions), "official_rule": benchmark.no_result_rule},
        "official": [_official(benchmark, solutions, predictions, threshold) for threshold in thresholds],
    }
    if rewards:
        value, macro_f1 = best_threshold(rewards, correct)
        results["rewards"] = reward_measures(solutions, predictions)
        results["threshold_for_other_data"] = {"threshold": value, "macro_f1_here": macro_f1}
    return results


def _no_result(solutions: Sequence[LabelledSolution], predictions: Sequence[Prediction]) -> dict[str, Any]:
    lost = [(s, p.no_result) for s, p in zip(solutions, predictions, strict=True) if p.no_result]
    return {
        "solutions": len(lost),
        "steps": sum(len(s.steps) for s, _ in lost),
        "causes": dict(Counter(cause for _, cause in lost)),
    }


def _official(
    benchmark: StepBenchmark,
    solutions: Sequence[LabelledSolution],
    predictions: Sequence[Prediction],
    threshold: Threshold,
) -> dict[str, Any]:
    """The benchmark's measures, with 95% intervals of those in tables. If some solutions have no result, also the
    measures of the others alone, and the worst case: all steps without a result are called wrongly."""
    calls: list[Calls] = [None if p.no_result else p.called(threshold.value) for p in predictions]

    def of(chosen: Sequence[int]) -> dict[str, float]:
        return headline(benchmark.measured([solutions[i] for i in chosen], [calls[i] for i in chosen]), benchmark.main)

    row: dict[str, Any] = {
        "threshold": None if math.isnan(threshold.value) else threshold.value,
        "origin": threshold.origin,
        "measures": benchmark.measured(solutions, calls),
        "ci": intervals(solutions, of),
    }
    if None in calls:
        pairs = list(zip(solutions, calls, strict=True))
        if having := [pair for pair in pairs if pair[1] is not None]:
            row["results_alone"] = benchmark.measured(*zip(*having, strict=True))
        falsely = [[mark is False for mark in s.correct] if called is None else called for s, called in pairs]
        row["were_no_results_false"] = benchmark.measured(solutions, falsely)
    return row


def headline(measures: dict[str, Any], main: str) -> dict[str, float]:
    """The measures in tables: all measures over all solutions, and the main one per group."""
    overall = {name: value for name, value in measures.items() if name != "by_group"}
    return overall | {f"{main}, {group}": row[main] for group, row in measures["by_group"].items()}


def reward_measures(solutions: Sequence[LabelledSolution], predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Measures over the labelled steps with a reward. `average_precision_error`: for detecting wrong steps.

    Within-problem process accuracy: how often a fully correct solution has a higher minimum reward than a solution of
    the same problem with a wrong step. A model that only knows which problems are hard scores 0.5.
    """

    def of(chosen: Sequence[int]) -> dict[str, float]:
        known = known_steps([solutions[i] for i in chosen], [predictions[i] for i in chosen])
        rewards, correct = np.array(known[0], dtype=float), np.array(known[1], dtype=bool)
        ranked = {"auroc": auroc(rewards, correct), "average_precision_error": average_precision(-rewards, ~correct)}
        return {name: value for name, value in ranked.items() if not math.isnan(value)}  # NaN: all steps are alike

    correct = known_steps(solutions, predictions)[1]
    ranked = of(range(len(solutions)))
    measures = {"steps": len(correct), "share_correct": float(np.mean(correct)), **ranked}
    ci = intervals(solutions, of) if ranked else {}
    if within := _within(solutions, predictions):
        measures |= {"within_problem_process_accuracy": float(np.mean(within)), "mixed_problems": len(within)}
        ci["within_problem_process_accuracy"] = list(bootstrap_interval(within))
    return {**measures, "ci": ci}


def known_steps(
    solutions: Sequence[LabelledSolution], predictions: Sequence[Prediction]
) -> tuple[list[float], list[bool]]:
    """The rewards of the labelled steps, and whether these are correct."""
    pairs = [
        pair
        for s, p in zip(solutions, predictions, strict=True) if p.rewards is not None
        for pair in zip(p.rewards, s.correct, strict=True)
    ]  # fmt: skip
    known = [(reward, mark) for reward, mark in pairs if mark is not None]
    return [reward for reward, _ in known], [mark for _, mark in known]


def _within(solutions: Sequence[LabelledSolution], predictions: Sequence[Prediction]) -> list[float]:
    """One AUROC per problem with both kinds of solutions."""
    of_problem: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for s, p in zip(solutions, predictions, strict=True):
        if p.rewards and (False in s.correct or all(s.correct)):
            of_problem[s.problem_id].append((min(p.rewards), all(s.correct)))
    values = [auroc(*zip(*pairs, strict=True)) for pairs in of_problem.values()]
    return [value for value in values if not math.isnan(value)]


# --- tables


def print_results(results: dict[str, Any], main: str) -> None:
    """Print the tables of `results.json`. `main`: the benchmark's main measure."""
    console, none = Console(), results["no_result"]
    console.print(f"{results['benchmark']}, images {results['images']}: {results['solutions']} solutions")
    if causes := none["causes"]:
        counts = ", ".join(f"{cause} {count}" for cause, count in causes.items())
        console.print(
            f"{none['solutions']} solutions without a result ({counts}); official rule: {none['official_rule']}"
        )
    for row in results["official"]:
        from_on = "" if row["threshold"] is None else f" at a reward of {row['threshold']:.3f} or more"
        console.print(f"Steps called correct{from_on} ({row['origin']})")
        console.print(official_table(row, main))
    if "rewards" in results:
        console.print(_reward_table(results["rewards"]))


READINGS = {  # how solutions without a result count
    "measures": "official",
    "results_alone": "only with a result",
    "were_no_results_false": "no result counted as wrong",
}


def official_table(row: dict[str, Any], main: str) -> Table:
    """The official measures, in each reading of what has no result."""
    readings = {title: headline(row[name], main) for name, title in READINGS.items() if name in row}
    first, *others = readings
    table = plain_table("Official measures", "measure", first, "95% interval", *others)
    for name, value in readings[first].items():
        beside = (_shown(readings[title][name]) if name in readings[title] else "none" for title in others)
        table.add_row(name, _shown(value), interval_text(row["ci"].get(name)), *beside)
    return table


def _reward_table(measures: dict[str, Any]) -> Table:
    table = plain_table("Threshold-free measures of rewards", "measure", "value", "95% interval")
    for name, value in measures.items():
        if name != "ci":
            table.add_row(name, _shown(value), interval_text(measures["ci"].get(name)))
    return table


def interval_text(bounds: list[float] | None) -> str:
    """An interval in a table; empty without one."""
    return " to ".join(map(_shown, bounds)) if bounds else ""


def _shown(value: float) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
