"""Counting in a grid: how many cells have a colour, a shape, or both.

Q: How many red cells are there?
[perception] row 1: red none blue
[perception] row 2: none red red
[reasoning] red by row: 1 + 2 = 3
[answer] 3
"""

from __future__ import annotations

import random
import re
from typing import Any

from PIL import Image

from vlprm.schema import AnswerType, Region, Step
from vlprm.tasks.scene import COLOURS, NEAR_COLOUR, NEAR_SHAPE, PALETTE, SHAPES, SIDE, canvas, draw_shape
from vlprm.tasks.synthetic import Change, Claim, Scene, SyntheticFamily, Writer, read_parts, with_content

_ROW = re.compile(r"\[perception\] row (\d): ([a-z ]+)")
_SUM = re.compile(r"\[reasoning\] ([a-z ]+) by row: (\d+(?: \+ \d+)*) = (\d+)")


def make(rng: random.Random) -> Scene:
    """A random scene."""
    kind = rng.choice(("colour", "shape", "both"))
    rows = rng.choice((2, 3))
    filled = rng.uniform(0.5, 0.95)
    colours, shapes = rng.sample(COLOURS, 3), rng.sample(SHAPES, 3)
    cells = [
        [[rng.choice(colours), rng.choice(shapes)] if rng.random() < filled else None for _ in range(3)]
        for _ in range(rows)
    ]
    target = {"colour": colours[0], "shape": shapes[0], "both": f"{colours[0]} {shapes[0]}"}[kind]
    layout = [[[rng.uniform(-4, 4), rng.uniform(-4, 4), rng.uniform(11, 16)] for _ in range(3)] for _ in range(rows)]
    return {"content": {"type": kind, "cells": cells, "target": target}, "layout": layout}


def draw(scene: Scene) -> Image.Image:
    """Draw the scene."""
    image, pen = canvas()
    pitch = SIDE / 3
    for row, cells in enumerate(scene["content"]["cells"]):
        for column, cell in enumerate(cells):
            pen.rectangle(
                [column * pitch, row * pitch, (column + 1) * pitch, (row + 1) * pitch], outline=(190, 190, 190)
            )
            if cell:
                dx, dy, radius = scene["layout"][row][column]
                centre = ((column + 0.5) * pitch + dx, (row + 0.5) * pitch + dy)
                draw_shape(pen, cell[1], centre, radius, PALETTE[cell[0]])
    return image


def ask(scene: Scene) -> tuple[str, str, AnswerType]:
    """The question, its answer and the answer's type."""
    content = scene["content"]
    noun = {"colour": f"{content['target']} cells", "shape": f"{content['target']}s", "both": f"{content['target']}s"}
    return f"How many {noun[content['type']]} are there?", str(sum(_counts(scene))), "integer"


def solve(scene: Scene, writer: Writer) -> list[str]:
    """The steps of a solution, with claims chosen by the writer."""
    content, steps, counts = scene["content"], [], []
    for row, cells in enumerate(content["cells"], 1):
        words = [_claimed_cell(content["type"], cell, writer) for cell in cells]
        counts.append(words.count(content["target"]))
        steps.append(f"[perception] row {row}: {' '.join(words)}")
    total = sum(counts)
    total = writer("reasoning", f"count {total}", total, [total - 1 if total > 2 else total + 1, total + 1])
    steps.append(f"[reasoning] {content['target']} by row: {' + '.join(map(str, counts))} = {total}")
    return [*steps, f"[answer] {total}"]


def _claimed_cell(kind: str, cell: list[str] | None, writer: Writer) -> str:
    if cell is None:
        return "none"
    colour, shape = cell
    if kind != "shape":
        near = NEAR_COLOUR[colour]
        colour = writer(
            "perception", f"colour {colour}", colour, [near, *(c for c in COLOURS if c not in (colour, near))]
        )
    if kind != "colour":
        near = NEAR_SHAPE[shape]
        shape = writer("perception", f"shape {shape}", shape, [near, *(s for s in SHAPES if s not in (shape, near))])
    return {"colour": colour, "shape": shape, "both": f"{colour} {shape}"}[kind]


def parse_claim(scene: Scene, stated: dict[str, Any], step: Step) -> Claim | None:
    """The claim of a step about the scene; None if it does not parse."""
    content = scene["content"]
    if row := _ROW.fullmatch(step.text):
        number = int(row[1])
        if not 1 <= number <= len(content["cells"]):
            return Claim(f"row {number}", row[2], None)
        true = [_word(content["type"], cell) for cell in content["cells"][number - 1]]
        said = re.findall(r"none|[a-z]+ [a-z]+" if content["type"] == "both" else r"[a-z]+", row[2])
        return Claim(f"row {number}", row[2], " ".join(true), parts=read_parts(said, true))
    if total := _SUM.fullmatch(step.text):
        summed = ([int(n) for n in total[2].split(" + ")], int(total[3]), total[1])
        rows = [_matches(stated.get(f"row {i + 1}", ""), content["target"]) for i in range(len(content["cells"]))]
        counts = _counts(scene)
        return Claim("total", summed, (counts, sum(counts), content["target"]), (rows, sum(rows), content["target"]))
    if step.kind == "answer":
        implied = stated["total"][1] if "total" in stated else 0
        return Claim("answer", step.text.removeprefix("[answer] "), str(sum(_counts(scene))), str(implied))
    return None


def _word(kind: str, cell: list[str] | None) -> str:
    if cell is None:
        return "none"
    return {"colour": cell[0], "shape": cell[1], "both": f"{cell[0]} {cell[1]}"}[kind]


def _counts(scene: Scene) -> list[int]:
    content = scene["content"]
    return [sum(_word(content["type"], cell) == content["target"] for cell in cells) for cells in content["cells"]]


def _matches(row: str, target: str) -> int:
    return len(re.findall(rf"\b{re.escape(target)}\b", row))


def changes(scene: Scene) -> list[Change]:
    """Another colour or another shape in one cell."""
    rows, pitch, found = scene["content"]["cells"], SIDE / 3, []
    for row, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            others = [[c, cell[1]] for c in COLOURS] + [[cell[0], s] for s in SHAPES] if cell else []
            # A shape may be a little larger than its cell.
            box = Region(column * pitch - 2, row * pitch - 2, (column + 1) * pitch + 2, (row + 1) * pitch + 2)
            for other in others:
                if other != cell:
                    changed = [*cells[:column], other, *cells[column + 1 :]]
                    found.append(Change(with_content(scene, cells=[*rows[:row], changed, *rows[row + 1 :]]), (box,)))
    return found


FAMILY = SyntheticFamily(
    "count_grid", 1, ("colour", "shape", "both"), make, draw, ask, solve, parse_claim, changes=changes
)
