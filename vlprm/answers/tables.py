"""Answers in Markdown tables: in a row or a column with the heading "Answer", or in a table that states one value."""

from __future__ import annotations

import re

_ROW = re.compile(r"^[^\S\n]*\|(.*)\|[^\S\n]*$", re.MULTILINE)
_RULE = re.compile(r"[\s|:-]*-[\s|:-]*")
_ANSWER = re.compile(r"\W*(?:the |my )?(?:final |correct )?(?:answer|ans|result)\W*", re.IGNORECASE)
MAX_LENGTH = 4000  # characters of a table


def answer_cells(said: str) -> list[tuple[int, str]]:
    """Where each cell beside or below the heading "Answer" stands, and its text. A column of several rows, which gives
    several answers, counts as empty."""
    found = []
    for start, header, rows in _tables(said):
        headed = [n for n, cell in enumerate(header) if _ANSWER.fullmatch(cell)]
        if len(headed) == 1 and rows:
            values = [row[headed[0]] for row in rows if len(row) > headed[0]]
            found.append((start, values[0] if len(values) == 1 else ""))
        found += [(start, row[1]) for row in rows if len(row) == 2 and _ANSWER.fullmatch(row[0])]
    return found


def only_row(said: str) -> list[str]:
    """The cells of a table that ends a text and has one row below its header; empty if it has more."""
    tables = _tables(said)
    if not tables or not said.rstrip().endswith("|"):
        return []
    return tables[-1][2][0] if len(tables[-1][2]) == 1 and tables[-1][1] else []


def _tables(said: str) -> list[tuple[int, list[str], list[list[str]]]]:
    """Start, header and rows of each table; the header is empty if no rule follows the first row."""
    if "|" not in said:
        return []
    tables: list[tuple[int, list[str], list[list[str]]]] = []
    last = -2
    for line in _ROW.finditer(said[-MAX_LENGTH:]):
        place = line.start() + max(0, len(said) - MAX_LENGTH)
        cells = [cell.strip() for cell in line[1].split("|")]
        if line.start() != last + 1:
            tables.append((place, [], []))
        if _RULE.fullmatch(line[1]):
            if not tables[-1][1] and len(tables[-1][2]) == 1:
                tables[-1] = (tables[-1][0], tables[-1][2][0], [])
        else:
            tables[-1][2].append(cells)
        last = line.end()
    return tables
