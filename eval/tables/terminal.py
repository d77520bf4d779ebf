"""Tables for the terminal, from `results.json`."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from vlprm.metrics import percent
from vlprm.viewer.tables import plain_table, selector_title


def print_tables(results: dict[str, Any]) -> None:
    """The tables of what was measured."""
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
        f"Which of {results['n_candidates']} candidates? ({results['n_problems']} problems"
        + (f", beside {failed} that failed" if failed else "")
        + f"; without an answer: {none['candidates']} candidates, and all those of {none['problems']} problems)",
        "selector", "accuracy %", "95% interval", "every step right %",
    )  # fmt: skip
    for name, row in results["selection"].items():
        low, high = row["ci"]
        title = selector_title(name, results["aggregation"])
        every_step = percent(row["fully_right"]) if "fully_right" in row else ""
        table.add_row(title, percent(row["accuracy"]), f"{percent(low)} to {percent(high)}", every_step)
    return table


def _differences(results: dict[str, Any]) -> Table:
    table = plain_table("Paired differences", "of", "points", "95% interval")
    for name, row in results["differences"].items():
        if isinstance(row, dict):
            table.add_row(name, percent(row["accuracy"]), " to ".join(map(percent, row["ci"])))
    table.add_row("share of the room from random to oracle that best of N closes",
                  percent(results["differences"]["share_of_room_closed"]) + "%", "")  # fmt: skip
    return table


def _curve(results: dict[str, Any]) -> Table:
    table = plain_table(f"Best of n by {results['aggregation']}, exact expectation", "n", "accuracy %")
    for n, accuracy in results["best_of_n"].items():
        table.add_row(n, percent(accuracy))
    return table


def _steps(results: dict[str, Any]) -> Table:
    table = plain_table("Step rewards against the truth", "measure", "value")
    for name, value in results["steps"].items():
        table.add_row(name.replace("_", " "), f"{value:.3f}" if isinstance(value, float) else str(value))
    return table


def _labels(results: dict[str, Any]) -> Table:
    table = plain_table(
        f"Labels against the truth: finding wrong steps (judge: {results['judge']})",
        "labels by", "precision", "recall", "F1", "share of steps labelled",
    )  # fmt: skip
    for name in ("mc", "judge", "fused"):
        row = results["labels"][name]
        table.add_row(name, *(f"{row[k]:.3f}" for k in ("precision", "recall", "f1", "labelled")))
    return table
