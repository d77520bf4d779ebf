"""Fine print that is only visible after a zoom: which hatching a coloured plate has.

    Q: Which print is on the green plate?
    [perception] the green plate is in row 1 column 3
    [zoom] {"bbox_2d": [500, 0, 750, 250], "label": "green plate"}
    [perception] the green plate has checks
    [answer] checks

The image has 512 x 512 pixels. A model with a limit of 128 x 128 sees it at a quarter of its side, and a zoomed cell of
the 4 x 4 lattice at full resolution.
"""

from __future__ import annotations

import json
import random
import re
from typing import Any

import numpy as np
from PIL import Image

from vlprm.schema import AnswerType, Region, Step
from vlprm.tasks.scene import COLOURS, PALETTE, canvas
from vlprm.tasks.synthetic import Change, Claim, Scene, SyntheticFamily, Writer, read_parts, with_content

SIDE, LATTICE, CELL = 512, 4, 128
OVERVIEW_SIDE = 128
PLATE, FRAME = (96, 56), 8

# The overview is too coarse by construction: every print is half ink with a period of exactly one overview pixel, so
# each overview pixel inside a plate averages whole periods and has the plate's own colour, whatever the print. Small
# type is not enough: a small network reads two-digit numbers off a quarter-size overview in 98% of cases. Plates are
# placed at multiples of the period, so that a print has the same phase everywhere. With random phases, all prints have
# the same average, and a small network that starts from such averages stayed at chance after 66,000 problems.
PERIOD = SIDE // OVERVIEW_SIDE
INK = 36  # grey levels above and below the plate's colour
PRINTS = ("stripes", "bars", "checks", "slashes")
NEAR_PRINT = {"stripes": "slashes", "bars": "stripes", "checks": "bars", "slashes": "checks"}

_PLACE = re.compile(r"\[perception\] the ([a-z]+) plate is in row ([1-9]) column ([1-9])")
_HAS = re.compile(r"\[perception\] the ([a-z]+) plate has ([a-z]+)")
_COMPARE = re.compile(r"\[reasoning\] ([a-z]+) and ([a-z]+) (match|differ)")


def make(rng: random.Random) -> Scene:
    """A random scene."""
    kind = rng.choice(("read", "same"))
    colours = rng.sample(COLOURS, rng.randint(4, 6))
    cells = rng.sample(range(LATTICE * LATTICE), len(colours))
    plates = {c: [i // LATTICE + 1, i % LATTICE + 1, rng.choice(PRINTS)] for c, i in zip(colours, cells, strict=True)}
    if kind == "same" and rng.random() < 0.4:
        plates[colours[1]][2] = plates[colours[0]][2]
    room = [CELL - PLATE[0] - 4, CELL - PLATE[1] - 4]
    layout = {c: [rng.randrange(PERIOD, side + 1, PERIOD) for side in room] for c in colours}
    asked = colours[: 1 if kind == "read" else 2]
    return {"content": {"type": kind, "plates": plates, "asked": asked}, "layout": layout}


def draw(scene: Scene) -> Image.Image:
    """Draw the scene."""
    image, pen = canvas(SIDE)
    for colour, (_, _, print_) in scene["content"]["plates"].items():
        box = _plate(scene, colour)
        left, top = int(box.x0), int(box.y0)
        pen.rectangle([left, top, left + PLATE[0] - 1, top + PLATE[1] - 1], fill=PALETTE[colour])
        image.paste(_printed(PALETTE[colour], print_), (left + FRAME, top + FRAME))
    return image


def _printed(colour: tuple[int, int, int], print_: str) -> Image.Image:
    y, x = np.mgrid[0 : PLATE[1] - 2 * FRAME, 0 : PLATE[0] - 2 * FRAME]
    half = PERIOD // 2
    field = {"stripes": y // half, "bars": x // half, "checks": x // half + y // half, "slashes": (x + y) // half}[
        print_
    ]
    # Away from black and white, where clipped ink would change the mean.
    base = np.clip(np.array(colour), INK, 255 - INK)
    return Image.fromarray((base + np.where(field % 2, INK, -INK)[..., None]).astype(np.uint8))


def _plate(scene: Scene, colour: str) -> Region:
    row, column, _ = scene["content"]["plates"][colour]
    dx, dy = scene["layout"][colour]
    x, y = (column - 1) * CELL + dx, (row - 1) * CELL + dy
    return Region(x, y, x + PLATE[0], y + PLATE[1])


def ask(scene: Scene) -> tuple[str, str, AnswerType]:
    """The question, its answer and the answer's type."""
    content = scene["content"]
    prints = [content["plates"][colour][2] for colour in content["asked"]]
    if content["type"] == "read":
        return f"Which print is on the {content['asked'][0]} plate?", prints[0], "word"
    first, second = content["asked"]
    answer = "yes" if prints[0] == prints[1] else "no"
    return f"Do the {first} and the {second} plate have the same print?", answer, "word"


def solve(scene: Scene, writer: Writer) -> list[str]:
    """The steps of a solution, with claims chosen by the writer."""
    content, steps, prints = scene["content"], [], []
    for colour in content["asked"]:
        row, column, _ = content["plates"][colour]
        row = writer("perception", f"row {row}", row, _neighbours(row))
        column = writer("perception", f"column {column}", column, _neighbours(column))
        shown = _shown(content["plates"], colour, row, column)
        near = [NEAR_PRINT[shown], *(p for p in PRINTS if p not in (shown, NEAR_PRINT[shown]))]
        prints.append(writer("perception", f"print {shown}", shown, near))
        box = [(column - 1) * 250, (row - 1) * 250, column * 250, row * 250]
        steps += [
            f"[perception] the {colour} plate is in row {row} column {column}",
            f"[zoom] {json.dumps({'bbox_2d': box, 'label': f'{colour} plate'})}",
            f"[perception] the {colour} plate has {prints[-1]}",
        ]
    if content["type"] == "read":
        return [*steps, f"[answer] {prints[0]}"]
    verdict = "match" if prints[0] == prints[1] else "differ"
    verdict = writer("reasoning", f"prints {verdict}", verdict, ["differ" if verdict == "match" else "match"])
    steps.append(f"[reasoning] {prints[0]} and {prints[1]} {verdict}")
    return [*steps, f"[answer] {'yes' if verdict == 'match' else 'no'}"]


def _neighbours(index: int) -> list[int]:
    return [i for i in (index + 1, index - 1, index + 2, index - 2) if 1 <= i <= LATTICE]


def _shown(plates: dict[str, Any], colour: str, row: int, column: int) -> str:
    """The print in a cell: that of the plate there; for an empty cell, a wrong guess."""
    there = [print_ for r, c, print_ in plates.values() if (r, c) == (row, column)]
    return str(there[0]) if there else NEAR_PRINT[plates[colour][2]]


def parse_claim(scene: Scene, stated: dict[str, Any], step: Step) -> Claim | None:
    """The claim of a step about the scene; None if it does not parse."""
    content = scene["content"]
    plates, asked = content["plates"], content["asked"]
    if place := _PLACE.fullmatch(step.text):
        true = plates[place[1]][:2] if place[1] in plates else None
        read = [int(place[2]), int(place[3])]
        return Claim(f"place {place[1]}", read, true, parts=read_parts(read, true or ()))
    if step.kind == "zoom":
        return _zoom(scene, stated, step)
    if has := _HAS.fullmatch(step.text):
        # A wrong place does not show this plate's print: the earlier error carries over.
        print_ = plates[has[1]][2] if has[1] in plates else None
        away = stated.get(f"place {has[1]}")
        shown = _shown(plates, has[1], *away) if print_ and away else print_
        parts = read_parts([has[2]], [print_])
        return Claim(f"print {has[1]}", has[2], print_, None if shown == print_ else shown, parts=parts)
    if (compare := _COMPARE.fullmatch(step.text)) and len(asked) == 2:
        read_off = [stated.get(f"print {colour}") for colour in asked]
        implied = "" if None in read_off else _compared(*read_off)
        return Claim("verdict", compare.groups(), _compared(*(plates[colour][2] for colour in asked)), implied)
    if step.kind == "answer":
        words = {"match": "yes", "differ": "no"}
        last = words[stated["verdict"][2]] if "verdict" in stated else stated.get(f"print {asked[0]}", "")
        return Claim("answer", step.text.removeprefix("[answer] "), ask(scene)[1], last)
    return None


def _compared(first: Any, second: Any) -> tuple[str, str, str]:
    return first, second, "match" if first == second else "differ"


def _zoom(scene: Scene, stated: dict[str, Any], step: Step) -> Claim | None:
    """A zoom is correct if it shows at least 90% of the plate and at most a quarter of the image. None for a zoom that
    was not executed."""
    region, label = step.region, re.search(r'"label": "([a-z]+) plate"', step.text)
    if region is None or label is None:
        return None
    colour = label[1]
    if colour not in scene["content"]["plates"]:
        return Claim(f"zoom {colour}", True, False, perceived="action")
    plate = _plate(scene, colour)
    shows = region.overlap(plate) >= 0.9 * plate.area and region.area <= SIDE * SIDE / 4
    place = stated.get(f"place {colour}")
    follows = place is not None and region.overlap(_cell(*place)) >= 0.9 * CELL * CELL
    return Claim(f"zoom {colour}", True, shows, True if follows else None, "action")


def _cell(row: int, column: int) -> Region:
    return Region((column - 1) * CELL, (row - 1) * CELL, column * CELL, row * CELL)


def regions(scene: Scene) -> dict[str, Region]:
    """The regions of the plates that are asked about, by zoom label."""
    return {f"{colour} plate": _plate(scene, colour) for colour in scene["content"]["asked"]}


def changes(scene: Scene) -> list[Change]:
    """Another print on a plate that is asked about, or its plate in an empty cell."""
    plates, found = scene["content"]["plates"], []
    taken = {(row, column) for row, column, _ in plates.values()}
    cells = [(i // LATTICE + 1, i % LATTICE + 1) for i in range(LATTICE * LATTICE)]
    for colour in scene["content"]["asked"]:
        row, column, print_ = plates[colour]
        others = [[row, column, other] for other in PRINTS if other != print_]
        others += [[*cell, print_] for cell in cells if cell not in taken]
        for other in others:
            changed = with_content(scene, plates={**plates, colour: other})
            boxes = dict.fromkeys((_plate(scene, colour), _plate(changed, colour)))
            found.append(Change(changed, tuple(boxes)))
    return found


FAMILY = SyntheticFamily("fine_print", 3, ("read", "same"), make, draw, ask, solve, parse_claim, regions, changes)
