"""Whether step rewards are probabilities, and whether an ensemble's spread tells where it errs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table

from eval.step_scores.results import interval_text, known_steps
from eval.step_scores.rows import intervals
from vlprm.metrics import auroc, brier, calibration_error, reliability
from vlprm.step_benchmarks.labelled import LabelledSolution
from vlprm.step_benchmarks.predictions import Prediction
from vlprm.viewer.tables import plain_table

CALLED = 0.5  # from this reward on, a step is called correct


def calibration(solutions: Sequence[LabelledSolution], predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Expected calibration error, Brier score and reliability curve of the labelled steps, over all and per group; with
    95% intervals over all. Empty if a reward is not a probability. A curve's bin is its mean reward, its share of right
    steps, and their number."""
    rewards, _ = known_steps(solutions, predictions)
    if not rewards or not 0 <= min(rewards) <= max(rewards) <= 1:
        return {}

    def of(chosen: Sequence[int]) -> dict[str, float]:
        rewards, correct = known_steps([solutions[i] for i in chosen], [predictions[i] for i in chosen])
        return {"ece": calibration_error(rewards, correct), "brier": brier(rewards, correct)} if rewards else {}

    by_group = {}
    for group in dict.fromkeys(solution.group for solution in solutions):
        chosen = [i for i, solution in enumerate(solutions) if solution.group == group]
        if measures := of(chosen):
            by_group[group] = {**measures, **_curve([solutions[i] for i in chosen], [predictions[i] for i in chosen])}
    everything = range(len(solutions))
    return {**of(everything), **_curve(solutions, predictions), "by_group": by_group, "ci": intervals(solutions, of)}


def spread(solutions: Sequence[LabelledSolution], predictions: Sequence[Prediction]) -> dict[str, float]:
    """The mean spread of an ensemble over the labelled steps, and how well the spread finds the steps that the mean
    calls falsely at 0.5 (AUROC). Empty without spreads."""
    pairs = [
        (spread, (reward >= CALLED) != mark)
        for s, p in zip(solutions, predictions, strict=True) if p.rewards is not None and p.spreads is not None
        for spread, reward, mark in zip(p.spreads, p.rewards, s.correct, strict=True) if mark is not None
    ]  # fmt: skip
    if not pairs:
        return {}
    spreads, false = zip(*pairs, strict=True)
    found = {"mean_spread": float(np.mean(spreads)), "auroc_of_false_calls": auroc(spreads, false)}
    return {name: value for name, value in found.items() if not np.isnan(value)}  # NaN: no call is false, or all are


def _curve(solutions: Sequence[LabelledSolution], predictions: Sequence[Prediction]) -> dict[str, Any]:
    rewards, correct = known_steps(solutions, predictions)
    return {"steps": len(rewards), "reliability": reliability(rewards, correct)}


def calibration_table(found: dict[str, Any]) -> Table:
    """The errors over all and per group."""
    table = plain_table("Calibration of rewards", "steps of", "steps", "ECE", "Brier score", "95% interval of the ECE")
    rows = {"all": found, **found["by_group"]}
    for name, row in rows.items():
        between = interval_text(found["ci"].get("ece")) if name == "all" else ""
        table.add_row(name, str(row["steps"]), f"{row['ece']:.3f}", f"{row['brier']:.3f}", between)
    return table


def reliability_table(found: dict[str, Any]) -> Table:
    """The reliability curve over all steps."""
    table = plain_table("Reliability", "mean reward", "share of right steps", "steps")
    for reward, share, count in found["reliability"]:
        table.add_row(f"{reward:.3f}", f"{share:.3f}", str(count))
    return table


def spread_table(found: dict[str, float]) -> Table:
    """The measures of an ensemble's spread."""
    table = plain_table("Spread of the ensemble", "measure", "value")
    for name, value in found.items():
        table.add_row(name, f"{value:.3f}")
    return table
