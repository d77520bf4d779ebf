"""Lengths and angles in a labelled figure: a third angle, a perimeter, a missing length.

    Q: What is the third angle?
    [perception] the angles are 50 and 60
    [reasoning] 50 + 60 = 110
    [reasoning] 180 - 110 = 70
    [answer] 70
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from typing import Any

from PIL import Image, ImageDraw

from vlprm.schema import AnswerType, Step
from vlprm.tasks.scene import INK, PALETTE, PAPER, canvas, write
from vlprm.tasks.synthetic import Claim, Scene, SyntheticFamily, Writer, claimed_number

TYPE = 16  # size of the printed numbers

QUESTIONS = {
    "angle": "What is the third angle?",
    "perimeter": "What is the perimeter?",
    "length": "How long is BC?",
}
READINGS = {
    "angle": "the angles are {} and {}",
    "perimeter": "the sides are {} and {}",
    "length": "AC is {} and AB is {}",
}

# The derivations of each type: what is asked of the writer, how it is written, and what follows from the two numbers
# read and the results before.
Derivation = tuple[str, str, Callable[[list[int]], tuple[int, int, int]]]
DERIVATIONS: dict[str, tuple[Derivation, ...]] = {
    "angle": (
        ("sum", "+", lambda n: (n[0], n[1], n[0] + n[1])),
        ("rest", "-", lambda n: (180, n[2], abs(180 - n[2]))),
    ),
    "perimeter": (
        ("sum", "+", lambda n: (n[0], n[1], n[0] + n[1])),
        ("double", "x", lambda n: (2, n[2], 2 * n[2])),
    ),
    "length": (("rest", "-", lambda n: (n[0], n[1], abs(n[0] - n[1]))),),
}

_READING = re.compile(r"\[perception\] (the angles are|the sides are|AC is) (\d{1,3}) and (AB is )?(\d{1,3})")
_DERIVATION = re.compile(r"\[reasoning\] (\d{1,4}) ([-+x]) (\d{1,4}) = (\d{1,4})")


def make(rng: random.Random) -> Scene:
    kind = rng.choice(("angle", "perimeter", "length"))
    if kind == "angle":
        numbers = [rng.randrange(25, 100, 5), rng.randrange(25, 100, 5)]
        while sum(numbers) > 155:
            numbers = [rng.randrange(25, 100, 5), rng.randrange(25, 100, 5)]
    elif kind == "perimeter":
        numbers = [rng.randint(3, 29), rng.randint(3, 29)]
    else:
        whole = rng.randint(12, 60)
        numbers = [whole, rng.randint(2, whole - 2)]
    layout = {
        "shift": [rng.uniform(-4, 4), rng.uniform(-6, 6)],
        "stretch": rng.uniform(0.85, 1.1),
        "tilt": rng.uniform(-0.15, 0.15),
        "colour": rng.choice(list(PALETTE)),
    }
    return {"content": {"type": kind, "numbers": numbers}, "layout": layout}


def draw(scene: Scene) -> Image.Image:
    image, pen = canvas()
    layout = scene["layout"]
    ink = tuple((c + n) // 2 for c, n in zip(PALETTE[layout["colour"]], INK, strict=True))
    painter = {"angle": _triangle, "perimeter": _rectangle, "length": _segment}[scene["content"]["type"]]
    painter(pen, scene["content"]["numbers"], layout, (64 + layout["shift"][0], 64 + layout["shift"][1]), ink)
    return image


def _triangle(pen: ImageDraw.ImageDraw, numbers: list[int], layout: Any, at: tuple[float, float], ink: Any) -> None:
    """The given angles at the left and right of the base, the unknown one on top; only roughly to scale."""
    x, y = at
    half, height = 52 * layout["stretch"], 56 * layout["stretch"]
    top = (x + half * 1.2 * math.sin(math.radians(numbers[0] - numbers[1])) * 0.5, y - height / 2)
    left, right = (x - half, y + height / 2), (x + half, y + height / 2)
    pen.polygon([left, right, top], outline=ink, fill=PAPER, width=2)
    write(pen, (left[0] + 12, left[1] + 12), str(numbers[0]), TYPE)
    write(pen, (right[0] - 12, right[1] + 12), str(numbers[1]), TYPE)
    write(pen, (top[0], top[1] - 10), "?", TYPE)


def _rectangle(pen: ImageDraw.ImageDraw, numbers: list[int], layout: Any, at: tuple[float, float], ink: Any) -> None:
    x, y = at[0] - 10, at[1] - 8
    width, height = 38 * layout["stretch"], 32 * (1 + 2 * layout["tilt"])
    pen.rectangle([x - width, y - height, x + width, y + height], outline=ink, width=2)
    write(pen, (x, y + height + 12), str(numbers[0]), TYPE)
    write(pen, (x + width + 13, y), str(numbers[1]), TYPE)


def _segment(pen: ImageDraw.ImageDraw, numbers: list[int], layout: Any, at: tuple[float, float], ink: Any) -> None:
    x, y = at
    half = 48 * layout["stretch"]
    between = x - half + 2 * half * min(max(numbers[1] / numbers[0], 0.3), 0.7)
    pen.line([x - half, y, x + half, y], fill=ink, width=2)
    for letter, tick in (("A", x - half), ("B", between), ("C", x + half)):
        pen.line([tick, y - 5, tick, y + 5], fill=ink, width=2)
        write(pen, (tick, y - 14), letter, 12)
    write(pen, (x, y - 32), str(numbers[0]), TYPE)
    write(pen, ((x - half + between) / 2, y + 16), str(numbers[1]), TYPE)
    write(pen, ((x + half + between) / 2, y + 16), "?", TYPE)


def ask(scene: Scene) -> tuple[str, str, AnswerType]:
    content = scene["content"]
    return QUESTIONS[content["type"]], str(_derived(content["type"], content["numbers"])[-1][2]), "integer"


def _derived(kind: str, numbers: list[int]) -> list[tuple[int, int, int]]:
    """Operands and result of each derivation, each following from the one before."""
    known, lines = list(numbers), []
    for _, _, follow in DERIVATIONS[kind]:
        lines.append(follow(known))
        known.append(lines[-1][2])
    return lines


def solve(scene: Scene, writer: Writer) -> list[str]:
    content = scene["content"]
    known = [claimed_number(writer, number) for number in content["numbers"]]
    steps = [f"[perception] {READINGS[content['type']].format(*known)}"]
    for concept, sign, follow in DERIVATIONS[content["type"]]:
        first, second, result = follow(known)
        near = [n for n in (result + 10, result - 10, result + 1, result - 1) if n > 0]
        result = writer("reasoning", f"{concept} {result}", result, near)
        known.append(result)
        steps.append(f"[reasoning] {first} {sign} {second} = {result}")
    return [*steps, f"[answer] {known[-1]}"]


def read(scene: Scene, stated: dict[str, Any], step: Step) -> Claim | None:
    kind, numbers = scene["content"]["type"], scene["content"]["numbers"]
    if reading := _READING.fullmatch(step.text):
        said = step.text.removeprefix("[perception] ")
        if said != READINGS[kind].format(reading[2], reading[4]):
            return None
        return Claim("numbers", [int(reading[2]), int(reading[4])], numbers)
    if line := _DERIVATION.fullmatch(step.text):
        place = sum(key.startswith("line") for key in stated)
        if place >= len(DERIVATIONS[kind]):
            return None
        said = (line[2], int(line[1]), int(line[3]), int(line[4]))
        sign = DERIVATIONS[kind][place][1]
        results = [stated[f"line {i}"][3] for i in range(place)]
        implied = (sign, *DERIVATIONS[kind][place][2](stated["numbers"] + results)) if "numbers" in stated else ""
        return Claim(f"line {place}", said, (sign, *_derived(kind, numbers)[place]), implied)
    if step.kind == "answer":
        results = [value[3] for key, value in stated.items() if key.startswith("line")]
        return Claim("answer", step.text.removeprefix("[answer] "), ask(scene)[1], str(results[-1]) if results else "")
    return None


FAMILY = SyntheticFamily("figure", 1, ("angle", "perimeter", "length"), make, draw, ask, solve, read)
