"""Print the tables of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from vlprm.metrics import percent, points_text
from vlprm.viewer.tables import plain_table

WIDTH, TITLE, CELL = 120, 50, 22  # characters in a narrow table, a row's title, and any other cell


def print_comparison(results: dict[str, Any]) -> None:
    """Print all tables."""
    Console(width=WIDTH).print(
        f"pool {results['checksum']}: {results['problems']} problems, {results['n']} candidates each; "
        f"{results['no_answer']} candidates without an answer; intervals (95%) are over problems"
    )
    lengths = results["lengths"]
    for table in (
        _accuracy(results["rows"]), _strata(results["strata"]), _equal_cost(results["equal_cost"]),
        _errors(results["shared_errors"]), _by_length(lengths), _limits(lengths), _best(lengths),
    ):  # fmt: skip
        Console(width=max(WIDTH, TITLE + CELL * (len(table.columns) - 1))).print(table)


def _accuracy(rows: dict[str, Any]) -> Table:
    names = list(next(iter(rows.values()))["by_benchmark"])
    table = plain_table(
        "Accuracy % (difference to the vote)", "chosen by", *names, "mean", "minus vote", "tokens", "TFLOPs", "asked %"
    )
    for title, row in rows.items():
        own = [_with_interval(row["by_benchmark"][name]) for name in names]
        tokens = f"{row['tokens']:,.0f}" if "tokens" in row else ""
        flops = f"{row['flops'] / 1e12:.3g}" if row.get("flops") is not None else ""
        asked = percent(row["asked"]) if "asked" in row else ""
        table.add_row(title, *own, percent(row["accuracy"]), points_text(row["difference"]), tokens, flops, asked)
    return table


def _strata(strata: Sequence[dict[str, Any]]) -> Table:
    columns = [f"{one['agreement']} ({one['problems']} problems)" for one in strata]
    table = plain_table("Accuracy % (minus vote) by agreement of the candidates", "chosen by", *columns)
    for title in dict.fromkeys(title for one in strata for title in one["rows"]):
        cells = [one["rows"].get(title) for one in strata]
        table.add_row(title, *(f"{_with_interval(c)}, {points_text(c['difference'])}" if c else "" for c in cells))
    return table


def _equal_cost(rows: Sequence[dict[str, Any]]) -> Table:
    table = plain_table(
        "At equal cost", "chosen by", "unit", "N at the vote's cost", "accuracy %", "minus vote of all",
        "N of the vote at its cost", "vote %", "minus that vote", "pool too small",
    )  # fmt: skip
    for row in rows:
        fewer, more = row["at_cost_of_vote"], row["vote_at_its_cost"]
        table.add_row(
            row["title"], row["unit"],
            f"{fewer['candidates']:.1f}", percent(fewer["accuracy"]), points_text(fewer["difference"]),
            f"{more['candidates']:.1f}", percent(more["vote"]), points_text(more["difference"]),
            str(row["too_small"]),
        )  # fmt: skip
    return table


def _errors(rows: dict[str, Any]) -> Table:
    table = plain_table(
        "Errors shared with the vote", "chosen by", "phi", "phi where any disagree", "both right", "the vote alone",
        "it alone", "both wrong",
    )  # fmt: skip
    for title, row in rows.items():
        counts = (f"{row[name]:.0f}" for name in ("both_right", "vote_alone", "own_alone", "both_wrong"))
        table.add_row(title, _phi(row["phi"]), _phi(row["phi_where_any_disagree"]), *counts)
    return table


def _by_length(lengths: dict[str, Any]) -> Table:
    half = lengths["longer_half"]
    title = f"Candidates by length; longer minus shorter half of a problem: {points_text(half['difference']) or 'none'}"
    table = plain_table(f"{title} ({half['of']} problems)", "tokens", "candidates", "no answer", "accuracy %")
    for row in lengths["quarters"]:
        low, high = row["tokens"]
        table.add_row(f"{low} to {high}", f"{row['candidates']:,}", str(row["no_answer"]), _with_interval(row))
    return table


def _limits(lengths: dict[str, Any]) -> Table:
    cells = lengths["cells"]
    chains = list(dict.fromkeys(cell["chains"] for cell in cells))
    table = plain_table(
        "The vote's accuracy % (tokens) by limit of tokens and number of chains", "limit", *map(str, chains)
    )
    for limit in dict.fromkeys(cell["limit"] for cell in cells):
        row = [f"{percent(cell['accuracy'])} ({cell['tokens']:,.0f})" for cell in cells if cell["limit"] == limit]
        table.add_row(str(limit), *row)
    return table


def _best(lengths: dict[str, Any]) -> Table:
    table = plain_table(
        "Best at equal tokens", "tokens", "whole chains", "best limit", "best number", "accuracy %", "minus whole"
    )
    for row in lengths["best_at_equal_tokens"]:
        numbers = f"{row['budget']:,.0f}", str(row["whole_chains"]), str(row["limit"]), str(row["chains"])
        table.add_row(*numbers, percent(row["accuracy"]), points_text(row["difference"]))
    return table


def _with_interval(cell: dict[str, Any]) -> str:
    return f"{percent(cell['accuracy'])} ({percent(cell['ci'][0])} to {percent(cell['ci'][1])})"


def _phi(cell: dict[str, Any] | None) -> str:
    return "" if cell is None else "{:.2f} ({:.2f} to {:.2f})".format(cell["value"], *cell["ci"])
