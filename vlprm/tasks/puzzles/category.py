"""The type of a category of puzzles. A solution reads the cells, states the rule, and says what the missing cell is.

[perception] row 1: red, orange, red
[perception] row 2: orange, blue, orange
[perception] row 3: red, ?, red
[reasoning] rule: corner red, edge orange, center blue
[reasoning] missing: edge is orange
[answer] C
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vlprm.tasks.puzzles.words import UNKNOWN, Cell, confusions

Cells = Sequence[Cell]
DIGITS = tuple(map(str, range(10)))
GRID_ROWS = (3, 3, 3)
PART = "What is the missing {} of the part denoted with a question mark?"


@dataclass(frozen=True)
class Category:
    """A category. `rule` and `missing` accept any cells, also misread ones, of the right number.

    Args:
        noun: what is missing, such as a color.
        question: the question; `{}` stands for the first value of the cell with the missing one.
        rows: number of cells in each row, as a solution reads them.
        kinds: kinds of the values of a cell (vlprm/tasks/puzzles/words.py).
        rule_kind: kind of the value that ends each part of a rule; empty if there is one rule only.
        make: random generator -> content: `cells`, `answer`, and what else the picture needs.
        options: (random generator, answer) -> the options in any order.
        rule: cells -> the rule.
        missing: (cells, rule) -> what the missing cell is; the value comes after the last " is " or " = ".
    """

    noun: str
    question: str
    rows: tuple[int, ...]
    kinds: tuple[str, ...]
    rule_kind: str
    make: Callable[[random.Random], dict[str, Any]]
    options: Callable[[random.Random, str], list[str]]
    rule: Callable[[Cells], str]
    missing: Callable[[Cells, str], str]


def value_of(missing: str) -> str:
    """The value that a statement gives to the missing cell."""
    return re.split(r" is | = ", missing)[-1]


def with_value(text: str, value: str) -> str:
    """The statement with another value for the missing cell."""
    return text[: len(text) - len(value_of(text))] + value


def near_rules(rule: str, kind: str) -> list[str]:
    """The rule with the value of one part confused, and of no other part."""
    parts = rule.split(", ") if kind else []
    found = []
    for place, part in enumerate(parts):
        head, _, value = part.rpartition(" ")
        for other in confusions(kind, value)[:2]:
            found.append(", ".join([*parts[:place], f"{head} {other}".strip(), *parts[place + 1 :]]))
    return [other for other in dict.fromkeys(found) if other != rule]


def any_of(values: Sequence[str]) -> Callable[[random.Random, str], list[str]]:
    """Options: the answer and others of the values, four at most."""

    def options(rng: random.Random, answer: str) -> list[str]:
        others = [value for value in values if value != answer]
        return [answer, *rng.sample(others, min(3, len(others)))]

    return options


def hide(rng: random.Random, cells: Sequence[Cell], places: Sequence[int]) -> tuple[list[list[str]], str]:
    """The cells with the last value of one of these places unknown, and that value."""
    place = rng.choice(places)
    shown = [list(cell) for cell in cells]
    answer, shown[place][-1] = shown[place][-1], UNKNOWN
    return shown, answer
