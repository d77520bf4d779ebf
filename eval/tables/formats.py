"""Table formats: text, Markdown, LaTeX, CSV and the Hub's two. Accuracies in percent; empty cell: not measured."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from rich.console import Console

from eval.runs.results import ORACLE
from eval.tables.config import Format
from eval.tables.hub import as_eval_results, as_model_index
from eval.tables.rows import TableRow
from vlprm.metrics import percent, points_text
from vlprm.viewer.tables import plain_table

LATEX = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\~{}", "^": r"\^{}"})


NUMBERS = ("problems", "N", "tokens sampled", "tokens read", "tokens", "TFLOPs", "seconds")


def header(rows: Sequence[TableRow]) -> list[str]:
    """Column titles; the first column is the row's title."""
    return ["", *benchmarks(rows), "mean", "difference (95% interval)", *NUMBERS]


def benchmarks(rows: Sequence[TableRow]) -> list[str]:
    """Benchmarks of the measured rows, or of all rows if none is measured."""
    own = [row for row in rows if row.spend is not None] or rows
    return list(dict.fromkeys(name for row in own for name in row.cells))


def cells(row: TableRow, columns: Sequence[str]) -> list[str]:
    """The cells of a row as text."""
    problems = sum(sample.problems for sample in row.samples.values()) or None
    spend = row.spend
    spent = (None, None, None, None) if spend is None else (spend.sampled, spend.read, spend.tokens, spend.flops)
    numbers = ["" if value is None else f"{value:,.0f}" for value in (problems, row.n, *spent[:3])]
    flops = "" if spent[3] is None else f"{spent[3] / 1e12:.3g}"
    seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
    return [row.title, *accuracies(row, columns), points_text(row.difference), *numbers, flops, seconds]


def accuracies(row: TableRow, columns: Sequence[str]) -> list[str]:
    """A row's accuracies, then their mean, which is empty unless all benchmarks were measured."""
    shares = [percent(row.cells[name]) if name in row.cells else "" for name in columns]
    whole = set(columns) <= set(row.cells)
    mean = percent(sum(row.cells[name] for name in columns) / len(columns)) if whole and columns else ""
    return [*shares, mean]


def table(rows: Sequence[TableRow], escape: Callable[[str], str] = str, bold: str = "{}") -> list[list[str]]:
    """Header and rows as text. Each accuracy has its interval, and the best of each group is in bold."""
    columns = benchmarks(rows)
    lines = [[escape(cell) for cell in header(rows)]]
    for row in rows:
        line = [escape(cell) for cell in cells(row, columns)]
        for at, name in enumerate([*columns, "mean"], 1):
            marked = bold.format(line[at]) if at in best_columns(row, rows, columns) else line[at]
            interval = row.intervals.get(name) if name in columns else None
            line[at] = marked + (f" ({percent(interval[0])} to {percent(interval[1])})" if interval else "")
        lines.append(line)
    return lines


def best_columns(row: TableRow, rows: Sequence[TableRow], columns: Sequence[str]) -> set[int]:
    """The columns in which no row of the group has a higher accuracy, as printed, than this one. The oracle, which is
    no method, does not compete, and a row does not compete alone."""
    rivals = [accuracies(one, columns) for one in rows if one.group == row.group and one.method != ORACLE]
    if row.method == ORACLE or len(rivals) < 2:
        return set()
    own = accuracies(row, columns)
    return {
        at + 1
        for at, value in enumerate(own)
        if value and float(value) == max(float(rival[at]) for rival in rivals if rival[at])
    }


def starts_group(rows: Sequence[TableRow], at: int) -> bool:
    """Whether a rule separates a row from the one above it."""
    return at > 0 and rows[at].group != rows[at - 1].group


def as_text(rows: Sequence[TableRow]) -> str:
    """Table for the terminal."""
    first, *others = table(rows)
    printed = plain_table("Accuracy % (95% interval)", *first)
    for at, line in enumerate(others):
        if starts_group(rows, at):
            printed.add_section()
        printed.add_row(*line)
    console = Console(file=io.StringIO(), width=max(120, 30 * len(first)))
    console.print(printed)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def as_markdown(rows: Sequence[TableRow]) -> str:
    """Markdown table."""
    first, *others = table(rows, lambda cell: cell.replace("|", "\\|"), "**{}**")
    lines = [["accuracy % (95% interval)", *first[1:]], ["---"] * len(first), *others]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_latex(rows: Sequence[TableRow]) -> str:
    """LaTeX table with booktabs rules."""
    first, *others = table(rows, lambda cell: cell.translate(LATEX), r"\textbf{{{}}}")
    body = [r"\midrule " * starts_group(rows, at) + " & ".join(line) + r" \\" for at, line in enumerate(others)]
    columns = "l" + "r" * (len(first) - 1)
    head = [
        r"% Accuracies in percent with 95% bootstrap intervals. The preamble needs \usepackage{booktabs}.",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(first) + r" \\",
        r"\midrule",
    ]
    return "\n".join([*head, *body, r"\bottomrule", r"\end{tabular}"]) + "\n"


def as_csv(rows: Sequence[TableRow]) -> str:
    """CSV with a header line; the intervals are in columns of their own at the end."""
    columns = benchmarks(rows)
    written = io.StringIO()
    ends = [f"{name} {end}" for name in columns for end in ("low", "high")]
    lines = [[*header(rows), *ends]]
    for row in rows:
        given = (row.intervals.get(name) for name in columns)
        lines.append(
            [*cells(row, columns), *(end for pair in given for end in (map(percent, pair) if pair else ("", "")))]
        )
    csv.writer(written, lineterminator="\n").writerows(lines)
    return written.getvalue()


FORMATS: dict[Format, Callable[[Sequence[TableRow]], str]] = {
    "text": as_text, "markdown": as_markdown, "latex": as_latex, "csv": as_csv,
    "model-index": as_model_index, "eval-results": as_eval_results,
}  # fmt: skip
