"""Completing an abstract pattern: which colour, number (of pips), shape or size is missing in a cycle.

Q: Which colour is missing?
[perception] cells: red blue green red ? green
[reasoning] the cycle is red blue green
[reasoning] cell 5 is blue
[answer] blue
"""

from __future__ import annotations

import random
import re
from itertools import pairwise
from typing import Any

from PIL import Image, ImageDraw

from vlprm.schema import AnswerType, Region, Step
from vlprm.tasks.scene import (
    COLOURS,
    INK,
    NEAR_COLOUR,
    NEAR_SHAPE,
    PALETTE,
    PAPER,
    SHAPES,
    SIDE,
    canvas,
    draw_shape,
    write,
)
from vlprm.tasks.synthetic import Change, Claim, Scene, SyntheticFamily, Writer, read_parts, with_content

CELLS = 6
SIZES = ("small", "medium", "large")
NUMBERS = ("1", "2", "3", "4", "5", "6")
VALUES = {"colour": COLOURS, "number": NUMBERS, "shape": SHAPES, "size": SIZES}
NEAR_NUMBER = {"1": "2", "2": "3", "3": "2", "4": "5", "5": "6", "6": "5"}
NEAR_SIZE = {"small": "medium", "medium": "large", "large": "medium"}
NEAR = {**NEAR_COLOUR, **NEAR_NUMBER, **NEAR_SHAPE, **NEAR_SIZE}
RADII = {1: {"small": 5.5, "medium": 6.5, "large": 7.5}, 2: {"small": 5.5, "medium": 9.5, "large": 14.5}}
HALVES = {1: 9.6, 2: 18.0}  # half the side of a cell, by number of rows
TURNS = (270, 270, 180, 90, 90)  # rotation in degrees of the arrows between the cells of two rows
GREY = (120, 120, 120)

# Pips as on a die: (column, row) in a 3 x 3 field.
PIPS = {
    "1": ((1, 1),),
    "2": ((0, 0), (2, 2)),
    "3": ((0, 0), (1, 1), (2, 2)),
    "4": ((0, 0), (2, 0), (0, 2), (2, 2)),
    "5": ((0, 0), (2, 0), (1, 1), (0, 2), (2, 2)),
    "6": ((0, 0), (2, 0), (0, 1), (2, 1), (0, 2), (2, 2)),
}

_ITEM = r"(?:[a-z]+|[0-9]|\?)"
_CELLS = re.compile(rf"\[perception\] cells: ({_ITEM}(?: {_ITEM})*)")
_CYCLE = re.compile(r"\[reasoning\] the cycle is ([a-z0-9]+(?: [a-z0-9]+){1,2})")
_PLACE = re.compile(r"\[reasoning\] cell ([1-9]) is ([a-z0-9]+)")


def make(rng: random.Random) -> Scene:
    """A random scene."""
    kind = rng.choice(("colour", "number", "shape", "size"))
    rows = rng.choice((1, 2)) if kind in ("colour", "shape") else 2
    shown = ("colour",) if kind == "number" else ("colour", "shape", "size")
    cells = [{**{name: rng.choice(VALUES[name]) for name in shown}, kind: value} for value in _sequence(kind, rng)]
    missing = rng.randrange(2, CELLS)
    cells[missing] = {kind: cells[missing][kind]}
    jitter = [[rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(-0.5, 0.5)] for _ in range(CELLS)]
    content = {"type": kind, "rows": rows, "cells": cells, "missing": missing}
    return {"content": content, "layout": {"shift": rng.uniform(-12, 12), "cells": jitter}}


def _sequence(kind: str, rng: random.Random) -> list[str]:
    cycle = rng.sample(VALUES[kind], 3)[: rng.choice((2, 3))]
    if len(cycle) == 3 and rng.random() < 0.4:
        cycle[rng.randrange(3)] = cycle[rng.randrange(3)]
    return [cycle[i % len(cycle)] for i in range(CELLS)]


def draw(scene: Scene) -> Image.Image:
    """Draw the scene."""
    image, pen = canvas()
    content, layout = scene["content"], scene["layout"]
    centres = [_centre(content["rows"], index, layout["shift"]) for index in range(CELLS)]
    if content["rows"] == 2:
        for ((x0, y0), (x1, y1)), turn in zip(pairwise(centres), TURNS, strict=True):
            pen.regular_polygon(((x0 + x1) / 2, (y0 + y1) / 2, 3.5), 3, rotation=turn, fill=GREY)
    for index, centre in enumerate(centres):
        _draw_cell(pen, content, index, *centre, layout["cells"][index])
    return image


def _centre(rows: int, index: int, shift: float) -> tuple[float, float]:
    pitch, (row, column) = SIDE * rows / CELLS, divmod(index, CELLS // rows)
    return ((2 - column if row else column) + 0.5) * pitch, SIDE / 2 + (row - (rows - 1) / 2) * pitch * 1.2 + shift


def _draw_cell(pen: ImageDraw.ImageDraw, content: Scene, index: int, x: float, y: float, jitter: list[float]) -> None:
    cell, rows, half = content["cells"][index], content["rows"], HALVES[content["rows"]]
    box, at = [x - half, y - half, x + half, y + half], (x + jitter[0], y + jitter[1])
    if index == content["missing"]:
        pen.rectangle(box, fill=(225, 225, 225), outline=GREY)
        write(pen, at, "?", 18 if rows == 1 else 24)
    elif content["type"] == "number":
        tint = tuple(
            (c + 2 * p) // 3 for c, p in zip(PALETTE[cell["colour"]], PAPER, strict=True)
        )  # dark pips must stay visible
        pen.rectangle(box, fill=tint, outline=GREY)
        for column, row in PIPS[cell["number"]]:
            px, py = at[0] + (column - 1) * 11, at[1] + (row - 1) * 11
            pen.ellipse([px - 4, py - 4, px + 4, py + 4], fill=INK)
    else:
        pen.rectangle(box, outline=(190, 190, 190))
        draw_shape(pen, cell["shape"], at, RADII[rows][cell["size"]] + jitter[2], PALETTE[cell["colour"]])


def ask(scene: Scene) -> tuple[str, str, AnswerType]:
    """The question, its answer and the answer's type."""
    content = scene["content"]
    kind, cell = content["type"], content["cells"][content["missing"]]
    return f"Which {kind} is missing?", str(cell[kind]), "integer" if kind == "number" else "word"


def solve(scene: Scene, writer: Writer) -> list[str]:
    """The steps of a solution, with claims chosen by the writer."""
    kind, number = scene["content"]["type"], scene["content"]["missing"] + 1
    cells = [word if word == "?" else _claimed_cell(kind, word, writer) for word in _words(scene)]
    rule = _rule(cells)
    cycle = writer("reasoning", f"cycle {len(rule)}", rule, _near_cycles(rule))
    value = cycle[(number - 1) % len(cycle)]
    near = [other for other in dict.fromkeys((*cycle, NEAR[value], *VALUES[kind])) if other != value]
    result = writer("reasoning", f"place {number}", value, near)
    derived = [f"the cycle is {' '.join(cycle)}", f"cell {number} is {result}"]
    return [f"[perception] cells: {' '.join(cells)}", *(f"[reasoning] {d}" for d in derived), f"[answer] {result}"]


def _claimed_cell(kind: str, word: str, writer: Writer) -> str:
    near = NEAR[word]
    return writer("perception", f"{kind} {word}", word, [near, *(v for v in VALUES[kind] if v not in (word, near))])


def _near_cycles(cycle: list[str]) -> list[list[str]]:
    """Cycles with another period, order, start or value."""
    period = cycle[:2] if len(cycle) == 3 else [*cycle, cycle[0]]
    likely = (period, [cycle[0], *cycle[:0:-1]], [*cycle[1:], cycle[0]], [*cycle[:-1], NEAR[cycle[-1]]])
    return [other for i, other in enumerate(likely) if other != cycle and other not in likely[:i]]


def _words(scene: Scene) -> list[str]:
    content = scene["content"]
    return ["?" if i == content["missing"] else str(c[content["type"]]) for i, c in enumerate(content["cells"])]


def _rule(cells: list[str]) -> list[str]:
    """The cycle that the fewest cells contradict, on ties the shorter one. Its values are the first known cells at each
    place."""
    cycles = [[next((c for c in cells[i::n] if c != "?"), "?") for i in range(n)] for n in (2, 3)]
    return min(cycles, key=lambda cycle: sum(c not in ("?", cycle[i % len(cycle)]) for i, c in enumerate(cells)))


def _missing(cells: list[str], cycle: list[str]) -> Any:
    """The missing cell's number and value; "" if too little is known."""
    place = cells.index("?") if "?" in cells else 0
    return (place + 1, cycle[place % len(cycle)]) if place and cycle else ""


def parse_claim(scene: Scene, stated: dict[str, Any], step: Step) -> Claim | None:
    """The claim of a step about the scene; None if it does not parse."""
    words = _words(scene)
    cells, true = stated.get("cells", "").split(), _rule(words)
    if row := _CELLS.fullmatch(step.text):
        return Claim("cells", row[1], " ".join(words), parts=read_parts(row[1].split(), words))
    if rule := _CYCLE.fullmatch(step.text):
        return Claim("rule", rule[1].split(), true, _rule(cells) if cells else "")
    if cell := _PLACE.fullmatch(step.text):
        return Claim("missing", (int(cell[1]), cell[2]), _missing(words, true), _missing(cells, stated.get("rule", [])))
    if step.kind == "answer":
        implied = str(stated["missing"][-1]) if "missing" in stated else ""
        return Claim("answer", step.text.removeprefix("[answer] "), ask(scene)[1], implied)
    return None


def changes(scene: Scene) -> list[Change]:
    """Another value in one cell that leaves the rule as it is: the cycle that the fewest cells contradict."""
    content, found = scene["content"], []
    kind, cells = content["type"], content["cells"]
    for index, cell in enumerate(cells):
        x, y = _centre(content["rows"], index, scene["layout"]["shift"])
        room = HALVES[content["rows"]] + 2
        for other in VALUES[kind] if index != content["missing"] else ():
            changed = with_content(scene, cells=[*cells[:index], {**cell, kind: other}, *cells[index + 1 :]])
            if other != cell[kind] and _rule(_words(changed)) == _rule(_words(scene)):
                found.append(Change(changed, (Region(x - room, y - room, x + room, y + room),)))
    return found


FAMILY = SyntheticFamily(
    "pattern", 2, ("colour", "number", "shape", "size"), make, draw, ask, solve, parse_claim, changes=changes
)
