"""What predictions of labelled steps are worth: the benchmark's own measures, and those that need no threshold."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
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
    origin: str


RESAMPLES = 200
FIXED = Threshold(0.5, "fixed in advance")
NO_THRESHOLD = Threshold(math.nan, "stored verdicts")


def measured_all(
    benchmark: StepBenchmark,
    solutions: Sequence[LabelledSolution],
    predictions: Sequence[Prediction],
    thresholds: Sequence[Threshold],
) -> dict[str, Any]:
    """As it stands in `results.json`. `official` has an entry for each threshold, or one for verdicts that were stored
    without rewards."""
    rewards, correct = _known(solutions, predictions)
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
    """The benchmark's measures, with 95% intervals of those that tables show. Where some solutions have no result, also
    those of the others alone; and what they would be were all steps of a failure called falsely: no failure can have
    made a model look better than that."""
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
    """What tables show of a benchmark's measures: those of all solutions, and the main one of each group."""
    overall = {name: value for name, value in measures.items() if name != "by_group"}
    return overall | {f"{main}, {group}": row[main] for group, row in measures["by_group"].items()}


def intervals(
    solutions: Sequence[LabelledSolution], measure: Callable[[Sequence[int]], dict[str, float]]
) -> dict[str, list[float]]:
    """95% percentile intervals of what `measure` makes of indices of solutions: whole problems are drawn again, since
    solutions of one problem are right and wrong together."""
    of_problem: dict[str, list[int]] = defaultdict(list)
    for i, solution in enumerate(solutions):
        of_problem[solution.problem_id].append(i)
    problems, rng = list(of_problem.values()), np.random.default_rng(0)
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(RESAMPLES):
        drawn = measure([i for n in rng.integers(0, len(problems), len(problems)) for i in problems[n]])
        for name, value in drawn.items():
            if isinstance(value, float) and not math.isnan(value):
                found[name].append(value)
    return {name: np.quantile(values, [0.025, 0.975]).tolist() for name, values in found.items()}


def reward_measures(solutions: Sequence[LabelledSolution], predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Of the labelled steps that have a reward. `average_precision_error` is that of finding wrong steps by a low one.

    Within-problem accuracy: how often, of two solutions of one problem, the one whose steps are all correct has a
    larger least reward than one with a wrong step. A model that only knows which problems are hard has a half there.
    """

    def of(chosen: Sequence[int]) -> dict[str, float]:
        known = _known([solutions[i] for i in chosen], [predictions[i] for i in chosen])
        rewards, correct = np.array(known[0], dtype=float), np.array(known[1], dtype=bool)
        ranked = {"auroc": auroc(rewards, correct), "average_precision_error": average_precision(-rewards, ~correct)}
        return {name: value for name, value in ranked.items() if not math.isnan(value)}  # there is one kind of step

    correct = _known(solutions, predictions)[1]
    ranked = of(range(len(solutions)))
    measures = {"steps": len(correct), "share_correct": float(np.mean(correct)), **ranked}
    ci = intervals(solutions, of) if ranked else {}
    if within := _within(solutions, predictions):
        measures |= {"within_problem_accuracy": float(np.mean(within)), "mixed_problems": len(within)}
        ci["within_problem_accuracy"] = list(bootstrap_interval(within))
    return {**measures, "ci": ci}


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
        from_on = "" if row["threshold"] is None else f" with a reward of {row['threshold']:.3f} or more"
        console.print(f"Called correct{from_on}: {row['origin']}")
        console.print(_official_table(row, main))
    if "rewards" in results:
        console.print(_reward_table(results["rewards"]))


READINGS = {  # of solutions without a result
    "measures": "official",
    "results_alone": "those with a result",
    "were_no_results_false": "were no results false",
}


def _official_table(row: dict[str, Any], main: str) -> Table:
    readings = {title: headline(row[name], main) for name, title in READINGS.items() if name in row}
    first, *others = readings
    table = plain_table("Official measures", "measure", first, "95% interval", *others)
    for name, value in readings[first].items():
        beside = (_shown(readings[title][name]) if name in readings[title] else "none" for title in others)
        table.add_row(name, _shown(value), _interval(row["ci"].get(name)), *beside)
    return table


def _reward_table(measures: dict[str, Any]) -> Table:
    table = plain_table("Rewards, without a threshold", "measure", "value", "95% interval")
    for name, value in measures.items():
        if name != "ci":
            table.add_row(name, _shown(value), _interval(measures["ci"].get(name)))
    return table


def _interval(bounds: list[float] | None) -> str:
    return " to ".join(map(_shown, bounds)) if bounds else ""


def _shown(value: float) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
