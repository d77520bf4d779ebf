"""Lengths and angles in a labelled figure, drawn over a scale: a perimeter, a missing length, an angle between rays.

Q: What is the perimeter?
[perception] the sides are 5 and 3
[reasoning] 5 + 3 = 8
[reasoning] 2 x 8 = 16
[answer] 16
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from typing import Any

from PIL import Image, ImageDraw

from vlprm.schema import AnswerType, Region, Step
from vlprm.tasks.scene import COLOURS, INK, PALETTE, canvas, write
from vlprm.tasks.synthetic import Change, Claim, Scene, SyntheticFamily, Writer, read_parts, with_content

UNIT = 13  # pixels of a length of 1
FAINT = (205, 205, 205)

QUESTIONS = {
    "perimeter": "What is the perimeter?",
    "length": "How long is BC?",
    "angle": "What is the angle between A and B?",
}
READINGS = {
    "perimeter": "the sides are {} and {}",
    "length": "AC is {} and AB is {}",
    "angle": "A is at {} and B is at {}",
}
CONCEPTS = {"perimeter": "side", "length": "mark", "angle": "ray"}

# The derivations of each type: the concept, the sign, and a function from the two numbers read and the earlier results
# to (first operand, second operand, result).
Derivation = tuple[str, str, Callable[[list[int]], tuple[int, int, int]]]
DERIVATIONS: dict[str, tuple[Derivation, ...]] = {
    "perimeter": (
        ("half", "+", lambda n: (n[0], n[1], n[0] + n[1])),
        ("double", "x", lambda n: (2, n[2], 2 * n[2])),
    ),
    "length": (("rest", "-", lambda n: (n[0], n[1], abs(n[0] - n[1]))),),
    "angle": (("turn", "-", lambda n: (n[0], n[1], abs(n[0] - n[1]))),),
}

_READING = re.compile(r"\[perception\] ([A-Za-z ]+?) (\d{1,3}) and ([A-Za-z ]*?)(\d{1,3})")
_DERIVATION = re.compile(r"\[reasoning\] (\d{1,4}) ([-+x]) (\d{1,4}) = (\d{1,4})")


def make(rng: random.Random) -> Scene:
    """A random scene."""
    kind = rng.choice(("perimeter", "length", "angle"))
    if kind == "perimeter":
        numbers = [rng.randint(1, 8), rng.randint(1, 8)]
    elif kind == "length":
        whole = rng.randint(2, 8)
        numbers = [whole, rng.randint(1, whole - 1)]
    else:
        numbers = sorted(rng.sample(range(0, 181, 30), 2), reverse=True)
    # Colours are shown but not asked for: without them, a family of small numbers would have few scenes.
    content = {"type": kind, "numbers": numbers, "colours": rng.sample(COLOURS, 2)}
    return {"content": content, "layout": [rng.uniform(-4, 4), rng.uniform(-4, 4)]}


def draw(scene: Scene) -> Image.Image:
    """Draw the scene."""
    image, pen = canvas()
    painter = {"perimeter": _rectangle, "length": _segment, "angle": _rays}[scene["content"]["type"]]
    painter(pen, scene["content"]["numbers"], [PALETTE[c] for c in scene["content"]["colours"]], scene["layout"])
    return image


def _rectangle(pen: ImageDraw.ImageDraw, numbers: list[int], colours: list[Any], shift: list[float]) -> None:
    """A rectangle on a unit grid; the first side is the bottom."""
    x, y = 12 + shift[0], 116 + shift[1]
    for i in range(9):
        pen.line([x + i * UNIT, y, x + i * UNIT, y - 8 * UNIT], fill=FAINT)
        pen.line([x, y - i * UNIT, x + 8 * UNIT, y - i * UNIT], fill=FAINT)
    pen.rectangle([x, y - numbers[1] * UNIT, x + numbers[0] * UNIT, y], fill=colours[0], outline=INK)


def _segment(pen: ImageDraw.ImageDraw, numbers: list[int], colours: list[Any], shift: list[float]) -> None:
    """A segment on a ruler: A is at its first mark, B and C are posts in two colours."""
    x, y = 12 + shift[0], 78 + shift[1]
    for i in range(9):
        pen.line([x + i * UNIT, y, x + i * UNIT, y + (12 if i % 4 == 0 else 7)], fill=INK)
    pen.line([x, y, x + 8 * UNIT, y], fill=INK, width=2)
    for letter, at, colour in (("A", 0, INK), ("B", numbers[1], colours[0]), ("C", numbers[0], colours[1])):
        pen.rectangle([x + at * UNIT - 3, y - 24, x + at * UNIT + 3, y], fill=colour)
        write(pen, (x + at * UNIT, y - 34), letter, 14)


def _rays(pen: ImageDraw.ImageDraw, numbers: list[int], colours: list[Any], shift: list[float]) -> None:
    """Two rays from the centre of a half circle with a mark every 30 degrees, 0 at the right."""
    x, y = 64 + shift[0], 96 + shift[1]
    for degrees in range(0, 181, 30):
        dx, dy = math.cos(math.radians(degrees)), -math.sin(math.radians(degrees))
        pen.line([x + 30 * dx, y + 30 * dy, x + 36 * dx, y + 36 * dy], fill=INK)
    for letter, degrees, colour in zip("AB", numbers, colours, strict=True):
        dx, dy = math.cos(math.radians(degrees)), -math.sin(math.radians(degrees))
        pen.line([x, y, x + 42 * dx, y + 42 * dy], fill=colour, width=4)
        write(pen, (x + 51 * dx, y + 51 * dy), letter, 14)


def ask(scene: Scene) -> tuple[str, str, AnswerType]:
    """The question, its answer and the answer's type."""
    content = scene["content"]
    return QUESTIONS[content["type"]], str(_derived(content["type"], content["numbers"])[-1][2]), "integer"


def _derived(kind: str, numbers: list[int]) -> list[tuple[int, int, int]]:
    """Operands and result of each derivation, in order."""
    known, lines = list(numbers), []
    for _, _, follow in DERIVATIONS[kind]:
        lines.append(follow(known))
        known.append(lines[-1][2])
    return lines


def solve(scene: Scene, writer: Writer) -> list[str]:
    """The steps of a solution, with claims chosen by the writer."""
    kind = scene["content"]["type"]
    scale = 30 if kind == "angle" else 1
    known = [_claimed(kind, number, scale, writer) for number in scene["content"]["numbers"]]
    steps = [f"[perception] {READINGS[kind].format(*known)}"]
    for concept, sign, follow in DERIVATIONS[kind]:
        first, second, result = follow(known)
        near = [n for n in (result + scale, result - scale, result + 2 * scale) if n >= 0]
        result = writer("reasoning", f"{concept} {result}", result, near)
        known.append(result)
        steps.append(f"[reasoning] {first} {sign} {second} = {result}")
    return [*steps, f"[answer] {known[-1]}"]


def _claimed(kind: str, number: int, scale: int, writer: Writer) -> int:
    low, high = (0, 180) if kind == "angle" else (1, 8)
    near = [n for n in (number + scale, number - scale, number + 2 * scale) if low <= n <= high]
    return writer("perception", f"{CONCEPTS[kind]} {number}", number, near)


def parse_claim(scene: Scene, stated: dict[str, Any], step: Step) -> Claim | None:
    """The claim of a step about the scene; None if it does not parse."""
    kind, numbers = scene["content"]["type"], scene["content"]["numbers"]
    if reading := _READING.fullmatch(step.text):
        if step.text != f"[perception] {READINGS[kind].format(reading[2], reading[4])}":
            return None
        read = [int(reading[2]), int(reading[4])]
        return Claim("numbers", read, numbers, parts=read_parts(read, numbers))
    results = [value[3] for key, value in stated.items() if key.startswith("line")]
    if line := _DERIVATION.fullmatch(step.text):
        place = len(results)
        if place >= len(DERIVATIONS[kind]):
            return None
        _, sign, follow = DERIVATIONS[kind][place]
        said = (line[2], int(line[1]), int(line[3]), int(line[4]))
        implied = (sign, *follow(stated["numbers"] + results)) if "numbers" in stated else ""
        return Claim(f"line {place}", said, (sign, *_derived(kind, numbers)[place]), implied)
    if step.kind == "answer":
        return Claim("answer", step.text.removeprefix("[answer] "), ask(scene)[1], str(results[-1]) if results else "")
    return None


def changes(scene: Scene) -> list[Change]:
    """Another side, place of a post or direction of a ray."""
    kind, numbers, found = scene["content"]["type"], scene["content"]["numbers"], []
    for i, number in enumerate(numbers):
        for other in range(0, 181, 30) if kind == "angle" else range(1, 9):
            changed = [other, numbers[1]] if i == 0 else [numbers[0], other]
            if other != number and (kind == "perimeter" or changed[0] > changed[1]):
                boxes = _boxes(kind, scene["layout"], [number, other], max(*numbers, other))
                found.append(Change(with_content(scene, numbers=changed), boxes))
    return found


def _boxes(kind: str, shift: list[float], moved: list[int], largest: int) -> tuple[Region, ...]:
    """Where a changed figure may differ: a rectangle in its whole area, a post or a ray in its two places."""
    if kind == "perimeter":
        x, y, side = 12 + shift[0], 116 + shift[1], largest * UNIT
        return (Region(x - 1, y - side - 1, x + side + 1, y + 1),)
    if kind == "length":
        x, y = 12 + shift[0], 78 + shift[1]
        return tuple(Region(x + at * UNIT - 9, y - 46, x + at * UNIT + 9, y + 2) for at in moved)
    x, y = 64 + shift[0], 96 + shift[1]
    ends = [(x + 51 * math.cos(math.radians(d)), y - 51 * math.sin(math.radians(d))) for d in moved]
    return tuple(Region(min(x, a) - 11, min(y, b) - 11, max(x, a) + 11, max(y, b) + 11) for a, b in ends)


FAMILY = SyntheticFamily(
    "figure", 2, ("perimeter", "length", "angle"), make, draw, ask, solve, parse_claim, changes=changes
)
