"""Dominoes: count all dots, or those of the tile with the most. A task outside the package, as a user adds one.

Q: How many dots are there in all?
[perception] tile 1: 3 and 5
[perception] tile 2: 6 and 1
[reasoning] dots by tile: 8, 7
[reasoning] in all: 15
[answer] 15
"""

from __future__ import annotations

import random
import re
from typing import Any

from PIL import Image

from vlprm.schema import AnswerType, Step
from vlprm.tasks.scene import INK, SIDE, canvas
from vlprm.tasks.synthetic import Claim, Scene, SyntheticFamily, Writer

HALF = 36  # side of half a tile, in pixels
DOTS = {1: "e", 2: "ai", 3: "aei", 4: "acgi", 5: "acegi", 6: "acdfgi"}  # places in a half, whose rows are abc, def, ghi
QUESTIONS = {
    "in all": ("How many dots are there in all?", sum),
    "the most": ("How many dots has the tile with the most?", max),
}

_TILE = re.compile(r"\[perception\] tile (\d): (\d) and (\d)")
_SUMS = re.compile(r"\[reasoning\] dots by tile: (\d{1,2}(?:, \d{1,2})*)")
_RESULT = re.compile(r"\[reasoning\] (in all|the most): (\d{1,3})")


def make(rng: random.Random) -> Scene:
    tiles = [[rng.randint(1, 6), rng.randint(1, 6)] for _ in range(rng.choice((2, 3)))]
    layout = [[rng.uniform(-3, 3), rng.uniform(-20, 20)] for _ in tiles]
    return {"content": {"type": rng.choice(list(QUESTIONS)), "tiles": tiles}, "layout": layout}


def draw(scene: Scene) -> Image.Image:
    image, pen = canvas()
    for column, (tile, (dx, dy)) in enumerate(zip(scene["content"]["tiles"], scene["layout"], strict=True)):
        left, top = 3 + column * (SIDE - 2) / 3 + dx, SIDE / 2 - HALF + dy
        for half, dots in enumerate(tile):
            y = top + half * HALF
            pen.rectangle([left, y, left + HALF, y + HALF], fill="white", outline=INK)
            for place in DOTS[dots]:
                row, along = divmod("abcdefghi".index(place), 3)
                pen.circle((left + (along + 1) * HALF / 4, y + (row + 1) * HALF / 4), 3.5, fill=INK)
    return image


def ask(scene: Scene) -> tuple[str, str, AnswerType]:
    content = scene["content"]
    question, total = QUESTIONS[content["type"]]
    return question, str(total(map(sum, content["tiles"]))), "integer"


def solve(scene: Scene, writer: Writer) -> list[str]:
    kind, tiles = scene["content"]["type"], scene["content"]["tiles"]
    seen = [[_seen(dots, writer) for dots in tile] for tile in tiles]
    sums = [_derived("sum", sum(tile), writer) for tile in seen]
    result = _derived(kind, QUESTIONS[kind][1](sums), writer)
    return [
        *(f"[perception] tile {n}: {first} and {second}" for n, (first, second) in enumerate(seen, 1)),
        f"[reasoning] dots by tile: {', '.join(map(str, sums))}",
        f"[reasoning] {kind}: {result}",
        f"[answer] {result}",
    ]


def _seen(dots: int, writer: Writer) -> int:
    return writer("perception", f"dots {dots}", dots, [n for n in (dots - 1, dots + 1) if n in DOTS])


def _derived(concept: str, number: int, writer: Writer) -> int:
    return writer("reasoning", f"{concept} {number}", number, [number + 1, number - 1])


def parse_claim(scene: Scene, stated: dict[str, Any], step: Step) -> Claim | None:
    """What a step states, the truth, and, for a derived value, what follows from the earlier claims."""
    kind, tiles = scene["content"]["type"], scene["content"]["tiles"]
    total, names = QUESTIONS[kind][1], [f"tile {n}" for n in range(1, len(tiles) + 1)]
    sums = [sum(tile) for tile in tiles]
    if tile := _TILE.fullmatch(step.text):
        name = f"tile {tile[1]}"
        return Claim(name, [int(tile[2]), int(tile[3])], dict(zip(names, tiles, strict=True)).get(name))
    if by_tile := _SUMS.fullmatch(step.text):
        implied = [sum(stated.get(name, ())) for name in names]
        return Claim("sums", [int(n) for n in by_tile[1].split(", ")], sums, implied)
    if result := _RESULT.fullmatch(step.text):
        said = (result[1], int(result[2]))
        return Claim("result", said, (kind, total(sums)), (kind, total(stated.get("sums", [0]))))
    if step.kind == "answer":
        _, implied = stated.get("result", ("", ""))
        return Claim("answer", step.text.removeprefix("[answer] "), str(total(sums)), str(implied))
    return None


FAMILY = SyntheticFamily("dominoes", 1, tuple(QUESTIONS), make, draw, ask, solve, parse_claim)
