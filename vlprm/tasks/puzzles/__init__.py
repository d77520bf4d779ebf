"""Abstract patterns with a missing part, drawn in the 20 categories of PuzzleVQA (arXiv 2403.13315).

    Q: What is the color of the missing part denoted with a question mark?   (A) green (B) red (C) orange (D) yellow
    [perception] row 1: red, orange, red
    [perception] row 2: orange, blue, orange
    [perception] row 3: red, ?, red
    [reasoning] rule: corner red, edge orange, center blue
    [reasoning] missing: edge is orange
    [answer] C

The family is named by its module, `--tasks '[vlprm.tasks.puzzles]'`: it is not one of the demo's. Questions and options
have the form of the published items (vlprm/benchmarks/puzzlevqa.py), so that a policy that is taught these drawings can
be asked about those.
"""

from __future__ import annotations

import random
import re
from itertools import accumulate
from typing import Any

from PIL import Image

from vlprm.prompts import with_options
from vlprm.schema import AnswerType, Step
from vlprm.tasks.puzzles.category import Category, Cells, near_rules, value_of, with_value
from vlprm.tasks.puzzles.deriving import DERIVING
from vlprm.tasks.puzzles.drawing import DRAWINGS, Sheet, jitter
from vlprm.tasks.puzzles.matching import MATCHING
from vlprm.tasks.puzzles.words import UNKNOWN, Cell, cell_of, confusions, item_of, number_of
from vlprm.tasks.synthetic import Claim, Scene, SyntheticFamily, Writer, read_parts

CATEGORIES: dict[str, Category] = dict(sorted({**MATCHING, **DERIVING}.items()))
LETTERS = "ABCD"

_ITEM = r"[a-z0-9? ]{1,30}"
_LINE = re.compile(rf"\[perception\] (parts|row [0-9]): ({_ITEM}(?:, {_ITEM}){{0,8}})")
_DERIVED = re.compile(r"\[reasoning\] (rule|missing): ([a-z0-9 ,+/=-]{1,120})")


def make(rng: random.Random) -> Scene:
    """A random scene of any category."""
    return scene_of(rng.choice(list(CATEGORIES)), rng)


def scene_of(name: str, rng: random.Random) -> Scene:
    """A random scene of a category."""
    made = CATEGORIES[name].make(rng)
    options = CATEGORIES[name].options(rng, made["answer"])
    rng.shuffle(options)
    return {"content": {"type": name, **made, "options": options}, "layout": jitter(rng)}


def draw(scene: Scene) -> Image.Image:
    """Draw the scene."""
    sheet = Sheet(scene["layout"])
    DRAWINGS[scene["content"]["type"]](sheet, scene["content"])
    return sheet.image


def ask(scene: Scene) -> tuple[str, str, AnswerType]:
    """The question with its options, the letter of its answer, and the answer's type."""
    content = scene["content"]
    key = next(cell[0] for cell in content["cells"] if UNKNOWN in cell)
    question = CATEGORIES[content["type"]].question.format(key)
    return with_options(question, content["options"]), _letter(content["answer"], content["options"]), "choice"


def _letter(value: str, options: list[str]) -> str:
    """The letter of the option; for another value, that of the nearest number or of the first option."""
    if value not in options and all(option.isdigit() for option in options):
        value = min(options, key=lambda option: abs(number_of(option) - number_of(value)))
    return LETTERS[options.index(value) if value in options else 0]


def _lines(category: Category, cells: Cells) -> dict[str, list[str]]:
    """The items of each line of a reading, by the line's name."""
    ends = list(accumulate(category.rows))
    names = [f"row {number}" for number in range(1, len(ends) + 1)] if len(ends) > 1 else ["parts"]
    bounds = zip(names, category.rows, ends, strict=True)
    return {name: [item_of(cell) for cell in cells[end - count : end]] for name, count, end in bounds}


def solve(scene: Scene, writer: Writer) -> list[str]:
    """The steps of a solution, with claims chosen by the writer."""
    content = scene["content"]
    category = CATEGORIES[content["type"]]
    cells = [_read(category, cell, writer) for cell in _cells(scene)]
    rule = category.rule(cells)
    rule = writer("reasoning", f"rule {content['type']}", rule, near_rules(rule, category.rule_kind))
    missing = category.missing(cells, rule)
    missing = writer("reasoning", f"missing {content['type']}", missing, _near(missing, category, content["options"]))
    return [
        *(f"[perception] {name}: {', '.join(items)}" for name, items in _lines(category, cells).items()),
        f"[reasoning] rule: {rule}",
        f"[reasoning] missing: {missing}",
        f"[answer] {_letter(value_of(missing), content['options'])}",
    ]


def _cells(scene: Scene) -> list[Cell]:
    return [tuple(cell) for cell in scene["content"]["cells"]]


def _read(category: Category, cell: Cell, writer: Writer) -> Cell:
    """The cell as the writer reads it; what is unknown stays so."""
    return tuple(
        value if value == UNKNOWN else writer("perception", f"{kind} {value}", value, confusions(kind, value))
        for kind, value in zip(category.kinds, cell, strict=False)
    )


def _near(missing: str, category: Category, options: list[str]) -> list[str]:
    """The statement with the value of another option, or with another number."""
    value = value_of(missing)
    numbers = confusions("number", value) if category.noun == "number" else []
    others = [*numbers[:2], *options]
    return [with_value(missing, other) for other in dict.fromkeys(others) if other != value]


def parse_claim(scene: Scene, stated: dict[str, Any], step: Step) -> Claim | None:
    """The claim of a step about the scene; None if it does not parse."""
    content = scene["content"]
    category, cells = CATEGORIES[content["type"]], _cells(scene)
    lines = _lines(category, cells)
    if line := _LINE.fullmatch(step.text):
        said, true = line[2].split(", "), lines.get(line[1])
        return Claim(line[1], said, true, parts=read_parts(said, true or ()))
    if derived := _DERIVED.fullmatch(step.text):
        read = _stated_cells(category, lines, stated)
        rule = category.rule(cells)
        if derived[1] == "rule":
            return Claim("rule", derived[2], rule, category.rule(read) if read else "")
        implied = category.missing(read, stated["rule"]) if read and "rule" in stated else ""
        return Claim("missing", derived[2], category.missing(cells, rule), implied)
    if step.kind == "answer":
        implied = _letter(value_of(stated["missing"]), content["options"]) if "missing" in stated else ""
        return Claim("answer", step.text.removeprefix("[answer] "), ask(scene)[1], implied)
    return None


def _stated_cells(category: Category, lines: dict[str, list[str]], stated: dict[str, Any]) -> list[Cell]:
    """The cells as the earlier steps read them; none if a line is missing or has another number of items."""
    read = {name: stated.get(name, []) for name in lines}
    if any(len(read[name]) != len(lines[name]) for name in lines):
        return []
    return [cell_of(item, len(category.kinds)) for items in read.values() for item in items]


FAMILY = SyntheticFamily("puzzles", 1, tuple(CATEGORIES), make, draw, ask, solve, parse_claim)
