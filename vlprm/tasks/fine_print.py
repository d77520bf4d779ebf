"""Fine print that can only be read after a zoom: two-digit numbers on coloured plates.

    Q: What does the green plate read?
    [perception] the green plate is in row 1 column 3
    [zoom] {"bbox_2d": [500, 0, 750, 250], "label": "green plate"}
    [perception] the green plate reads 47
    [answer] 47

The image has 512 x 512 pixels. A model whose limit is 128 x 128 sees it at a quarter of the size, and a cell of the
4 x 4 lattice, once zoomed, at its own.
"""

from __future__ import annotations

import json
import random
import re
from typing import Any

from PIL import Image

from vlprm.schema import AnswerType, Region, Step
from vlprm.tasks.scene import COLOURS, PALETTE, canvas, write
from vlprm.tasks.synthetic import Claim, Scene, SyntheticFamily, Writer, claimed_number

SIDE = 512
LATTICE = 4
CELL = SIDE // LATTICE
OVERVIEW_SIDE = 128
# Too coarse by construction: the digits are 13 pixels tall in the original and about 3 in the overview, fewer rows
# than digits need to differ from one another (5 in the smallest pixel fonts). In the crop they keep their 13.
TYPE = 18
DIGIT_HEIGHT = 13
PLATE = (88, 48)

_PLACE = re.compile(r"\[perception\] the ([a-z]+) plate is in row ([1-9]) column ([1-9])")
_READS = re.compile(r"\[perception\] the ([a-z]+) plate reads (\d{1,3})")
_SUM = re.compile(r"\[reasoning\] (\d{1,3}) \+ (\d{1,3}) = (\d{1,4})")


def make(rng: random.Random) -> Scene:
    kind = rng.choice(("read", "sum"))
    colours = rng.sample(COLOURS, rng.randint(4, 6))
    cells = rng.sample(range(LATTICE * LATTICE), len(colours))
    places = [[cell // LATTICE + 1, cell % LATTICE + 1] for cell in cells]
    plates = {c: [*place, rng.randint(10, 99)] for c, place in zip(colours, places, strict=True)}
    room = [CELL - PLATE[0] - 8, CELL - PLATE[1] - 8]
    layout = {c: [4 + rng.uniform(0, room[0]), 4 + rng.uniform(0, room[1])] for c in colours}
    asked = colours[: 1 if kind == "read" else 2]
    return {"content": {"type": kind, "plates": plates, "asked": asked}, "layout": layout}


def draw(scene: Scene) -> Image.Image:
    image, pen = canvas(SIDE)
    for colour, (_, _, number) in scene["content"]["plates"].items():
        box = _plate(scene, colour)
        pen.rectangle([box.x0, box.y0, box.x1, box.y1], fill=PALETTE[colour])
        x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
        pen.rectangle([x - 16, y - 12, x + 16, y + 12], fill=(255, 255, 255))
        write(pen, (x, y), str(number), TYPE)
    return image


def _plate(scene: Scene, colour: str) -> Region:
    row, column, _ = scene["content"]["plates"][colour]
    dx, dy = scene["layout"][colour]
    x, y = (column - 1) * CELL + dx, (row - 1) * CELL + dy
    return Region(x, y, x + PLATE[0], y + PLATE[1])


def ask(scene: Scene) -> tuple[str, str, AnswerType]:
    content = scene["content"]
    total = str(sum(content["plates"][colour][2] for colour in content["asked"]))
    if content["type"] == "read":
        return f"What does the {content['asked'][0]} plate read?", total, "integer"
    return f"What do the {content['asked'][0]} and the {content['asked'][1]} plate add up to?", total, "integer"


def solve(scene: Scene, writer: Writer) -> list[str]:
    content, steps, numbers = scene["content"], [], []
    for colour in content["asked"]:
        row, column, _ = content["plates"][colour]
        row = writer("perception", f"row {row} of {colour}", row, _neighbours(row))
        column = writer("perception", f"column {column} of {colour}", column, _neighbours(column))
        numbers.append(claimed_number(writer, _shown(content["plates"], colour, row, column)))
        box = [(column - 1) * 250, (row - 1) * 250, column * 250, row * 250]
        steps += [
            f"[perception] the {colour} plate is in row {row} column {column}",
            f"[zoom] {json.dumps({'bbox_2d': box, 'label': f'{colour} plate'})}",
            f"[perception] the {colour} plate reads {numbers[-1]}",
        ]
    if content["type"] == "read":
        return [*steps, f"[answer] {numbers[0]}"]
    total = sum(numbers)
    total = writer("reasoning", f"total {total % 10}", total, [total - 10, total + 10, total + 1, total - 1])
    return [*steps, f"[reasoning] {numbers[0]} + {numbers[1]} = {total}", f"[answer] {total}"]


def _neighbours(index: int) -> list[int]:
    return [i for i in (index + 1, index - 1, index + 2, index - 2) if 1 <= i <= LATTICE]


def _shown(plates: dict[str, Any], colour: str, row: int, column: int) -> int:
    """The number to be read in a cell: the plate's that is there, else any other than the right one."""
    there = [n for r, c, n in plates.values() if (r, c) == (row, column)]
    return int(there[0]) if there else (plates[colour][2] * 7 + 13) % 90 + 10


def read(scene: Scene, stated: dict[str, Any], step: Step) -> Claim | None:
    content = scene["content"]
    plates, asked = content["plates"], content["asked"]
    if place := _PLACE.fullmatch(step.text):
        true = plates[place[1]][:2] if place[1] in plates else None
        return Claim(f"place {place[1]}", [int(place[2]), int(place[3])], true)
    if step.kind == "zoom":
        return _zoom(scene, stated, step)
    if reads := _READS.fullmatch(step.text):
        # What a wrong place shows is not the plate's number: it carries the error made before.
        number = plates[reads[1]][2] if reads[1] in plates else None
        away = stated.get(f"place {reads[1]}")
        shown = _shown(plates, reads[1], *away) if number and away else number
        return Claim(f"number {reads[1]}", int(reads[2]), number, None if shown == number else shown)
    if total := _SUM.fullmatch(step.text):
        numbers = [stated.get(f"number {colour}") for colour in asked]
        implied: Any = "" if None in numbers else (*numbers, sum(n for n in numbers if n))
        true = [plates[colour][2] for colour in asked]
        return Claim("total", tuple(map(int, total.groups())), (*true, sum(true)), implied)
    if step.kind == "answer":
        last = stated["total"][2] if "total" in stated else stated.get(f"number {asked[0]}", "")
        return Claim("answer", step.text.removeprefix("[answer] "), ask(scene)[1], str(last))
    return None


def _zoom(scene: Scene, stated: dict[str, Any], step: Step) -> Claim | None:
    """A zoom is right where it shows at least 90% of the plate and at most a quarter of the image."""
    try:
        asked = json.loads(step.text.removeprefix("[zoom] "))
        colour = asked["label"].removesuffix(" plate")
        region = step.region or Region(*(float(v) * SIDE / 1000 for v in asked["bbox_2d"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if colour not in scene["content"]["plates"]:
        return Claim("zoom", True, False, perceived="action")
    plate = _plate(scene, colour)
    shows = region.overlap(plate) >= 0.9 * plate.area and region.area <= SIDE * SIDE / 4
    place = stated.get(f"place {colour}")
    follows = place is not None and _cell(*place).overlap(region) >= 0.9 * region.area
    return Claim(f"zoom {colour}", True, shows, True if follows else None, "action")


def _cell(row: int, column: int) -> Region:
    return Region((column - 1) * CELL, (row - 1) * CELL, column * CELL, row * CELL)


FAMILY = SyntheticFamily("fine_print", 1, ("read", "sum"), make, draw, ask, solve, read)
