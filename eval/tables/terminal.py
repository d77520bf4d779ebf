"""Print the tables of `results.json` in the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from vlprm.metrics import percent, points
from vlprm.viewer.names import LABELS, MEASURES, difference_name, selector_title
from vlprm.viewer.tables import plain_table


def print_tables(results: dict[str, Any]) -> None:
    """Print a table for each measured part."""
    tables = {
        "selection": _selection,
        "differences": _differences,
        "best_of_n": _curve,
        "steps": _steps,
        "labels": _labels,
    }
    console = Console()
    for name, table in tables.items():
        if name in results:
            console.print(table(results))


def _selection(results: dict[str, Any]) -> Table:
    none, failed = results["no_answer"], results["failed"]
    table = plain_table(
        f"Selection from {results['n_candidates']} candidates ({results['n_problems']} problems"
        + (f", {failed} more failed" if failed else "")
        + f"; no answer: {none['candidates']} candidates, all candidates of {none['problems']} problems)",
        "selector", "accuracy %", "95% interval", "every step right %",
    )  # fmt: skip
    for name, row in results["selection"].items():
        low, high = row["ci"]
        title = selector_title(name, results["aggregation"])
        every_step = percent(row["fully_right"]) if "fully_right" in row else ""
        table.add_row(title, percent(row["accuracy"]), f"{percent(low)} to {percent(high)}", every_step)
    return table


def _differences(results: dict[str, Any]) -> Table:
    table = plain_table("Paired differences", "difference", "points", "95% interval")
    for name, row in results["differences"].items():
        if isinstance(row, dict):
            table.add_row(difference_name(name), points(row["accuracy"]), " to ".join(map(points, row["ci"])))
    table.add_row("share of the gap from random to oracle closed by best of N",
                  percent(results["differences"]["share_of_room_closed"]) + "%", "")  # fmt: skip
    return table


def _curve(results: dict[str, Any]) -> Table:
    table = plain_table(f"Expected accuracy of best of n by {results['aggregation']} (exact)", "n", "accuracy %")
    for n, accuracy in results["best_of_n"].items():
        table.add_row(n, percent(accuracy))
    return table


def _steps(results: dict[str, Any]) -> Table:
    table = plain_table("Step rewards against the ground truth", "measure", "value")
    for name, value in results["steps"].items():
        table.add_row(MEASURES[name], f"{value:.3f}" if isinstance(value, float) else f"{value:,}")
    return table


def _labels(results: dict[str, Any]) -> Table:
    table = plain_table(
        f"Labels against the ground truth: detection of wrong steps (judge: {results['judge']})",
        "labels by", "precision", "recall", "F1", "share of steps labelled",
    )  # fmt: skip
    for name in ("mc", "judge", "fused"):
        row = results["labels"][name]
        table.add_row(LABELS[name], *(f"{row[k]:.3f}" for k in ("precision", "recall", "f1", "labelled")))
    return table
