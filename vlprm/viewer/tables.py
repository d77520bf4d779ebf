"""Tables for the terminal, and the titles of selectors in every table."""

from __future__ import annotations

from rich.table import Table

NAMES = {
    "random": "random candidate (mean of the pool)",
    "majority": "majority vote",
    "weighted_majority": "vote weighted by the reward model",
    "whole_solution": "best of N, whole solution as one step",
    "likeliest": "best of N, least surprising to the backbone (no training)",
    "oracle": "oracle (a right candidate, if the pool has one)",
}


def plain_table(title: str, *columns: str) -> Table:
    """An empty table whose first column is a name and whose others are numbers."""
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    return table


def selector_title(name: str, aggregation: str) -> str:
    """The title of a selector; a search method has its own name."""
    if name.startswith("prm_"):
        rule = name.removeprefix("prm_")
        return f"best of N by step rewards: {rule}" + (" (fixed in advance)" if rule == aggregation else "")
    return NAMES.get(name, name)
