"""Table formats: text, Markdown, LaTeX, CSV and the Hub's two. Accuracies in percent; empty cell: not measured."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from rich.console import Console

from eval.tables.config import Format
from eval.tables.hub import as_eval_results, as_model_index
from eval.tables.rows import TableRow
from vlprm.metrics import percent
from vlprm.viewer.tables import plain_table

LATEX = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\~{}", "^": r"\^{}"})


NUMBERS = ("problems", "N", "tokens sampled", "tokens read", "tokens", "TFLOPs", "seconds")


def header(rows: Sequence[TableRow]) -> list[str]:
    """Column titles; the first column is the row's title."""
    return ["", *benchmarks(rows), "mean", "difference (95% interval)", *NUMBERS]


def benchmarks(rows: Sequence[TableRow]) -> list[str]:
    """Benchmarks of the measured rows; of all rows if none is measured."""
    own = [row for row in rows if row.spend is not None] or rows
    return list(dict.fromkeys(name for row in own for name in row.cells))


def cells(row: TableRow, columns: Sequence[str]) -> list[str]:
    """The cells of a row as text. The mean is empty unless all benchmarks were measured."""
    shares = [percent(row.cells[name]) if name in row.cells else "" for name in columns]
    whole = set(columns) <= set(row.cells)
    mean = percent(sum(row.cells[name] for name in columns) / len(columns)) if whole and columns else ""
    apart = "" if row.difference is None else "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * d for d in row.difference))
    problems = sum(sample.problems for sample in row.samples.values()) or None
    spend = row.spend
    spent = (None, None, None, None) if spend is None else (spend.sampled, spend.read, spend.tokens, spend.flops)
    numbers = ["" if value is None else f"{value:,.0f}" for value in (problems, row.n, *spent[:3])]
    flops = "" if spent[3] is None else f"{spent[3] / 1e12:.3g}"
    return [row.title, *shares, mean, apart, *numbers, flops, "" if row.seconds is None else f"{row.seconds:.1f}"]


def table(rows: Sequence[TableRow]) -> list[list[str]]:
    """Header and rows as text."""
    columns = benchmarks(rows)
    return [header(rows), *(cells(row, columns) for row in rows)]


def as_text(rows: Sequence[TableRow]) -> str:
    """Table for the terminal."""
    first, *others = table(rows)
    printed = plain_table("Accuracy %", *first)
    for line in others:
        printed.add_row(*line)
    console = Console(file=io.StringIO(), width=max(120, 24 * len(first)))
    console.print(printed)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def as_markdown(rows: Sequence[TableRow]) -> str:
    """Markdown table."""
    first, *others = [[cell.replace("|", "\\|") for cell in line] for line in table(rows)]
    lines = [first, ["---"] * len(first), *others]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_latex(rows: Sequence[TableRow]) -> str:
    """LaTeX table with booktabs rules."""
    first, *others = [[cell.translate(LATEX) for cell in line] for line in table(rows)]
    body = [" & ".join(line) + r" \\" for line in others]
    columns = "l" + "r" * (len(first) - 1)
    head = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", " & ".join(first) + r" \\", r"\midrule"]
    return "\n".join([*head, *body, r"\bottomrule", r"\end{tabular}"]) + "\n"


def as_csv(rows: Sequence[TableRow]) -> str:
    """CSV with a header line."""
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(table(rows))
    return written.getvalue()


FORMATS: dict[Format, Callable[[Sequence[TableRow]], str]] = {
    "text": as_text, "markdown": as_markdown, "latex": as_latex, "csv": as_csv,
    "model-index": as_model_index, "eval-results": as_eval_results,
}  # fmt: skip
