"""Reading a bar or line chart: a difference, a sum, a rise, or the highest point.

Q: How much taller is B than D?
[perception] B is 7
[perception] D is 3
[reasoning] 7 - 3 = 4
[answer] 4
"""

from __future__ import annotations

import random
import re
from typing import Any

from PIL import Image, ImageDraw

from vlprm.schema import AnswerType, Region, Step
from vlprm.tasks.scene import COLOURS, INK, PALETTE, SIDE, canvas, write
from vlprm.tasks.synthetic import Change, Claim, Scene, SyntheticFamily, Writer, read_parts, with_content

LETTERS = "ABCDE"
TALLEST = 9
LEFT, BASE = 14, 109  # x and y of the axes in pixels; the letters are below

_N = r"(?:0|[1-9][0-9]{0,2})"
_HEIGHTS = re.compile(rf"\[perception\] ([A-Z] is {_N}(?: [A-Z] is {_N})*)")
_HEIGHT = re.compile(rf"([A-Z]) is ({_N})")
_RESULT = re.compile(rf"\[reasoning\] ({_N}) ([+-]) ({_N}) = (-?{_N})")
_LARGEST = re.compile(rf"\[reasoning\] the largest is ({_N}) at ([A-Z])")


def make(rng: random.Random) -> Scene:
    """A random scene."""
    kind = rng.choice(("difference", "sum", "highest", "rise"))
    count = rng.choice((4, 5))
    heights, first, second = [0] * count, 0, 0
    while not _askable(kind, heights, first, second):
        heights = [rng.randint(1, TALLEST) for _ in range(count)]
        first, second = rng.sample(range(count), 2)
    colours = rng.choices(COLOURS, k=count) if rng.random() < 0.6 else [rng.choice(COLOURS)] * count
    layout = {
        "unit": rng.choice((10, 11)),
        "width": rng.uniform(0.45, 0.75),
        "shifts": [rng.uniform(-1.5, 1.5) for _ in heights],
        "colours": colours,
        "radius": rng.uniform(3, 4.5),
    }
    asked = [] if kind == "highest" else [LETTERS[first], LETTERS[second]]
    return {"content": {"type": kind, "heights": heights, "asked": asked}, "layout": layout}


def _askable(kind: str, heights: list[int], first: int, second: int) -> bool:
    if kind == "highest":
        return heights.count(max(heights)) == 1
    if kind == "sum":
        return first != second
    return heights[first] > heights[second] and (kind == "difference" or first > second)


def draw(scene: Scene) -> Image.Image:
    """Draw the scene."""
    image, pen = canvas()
    layout = scene["layout"]
    left, unit = LEFT, layout["unit"]
    for height in range(1, TALLEST + 1):
        y = BASE - height * unit
        pen.line([left, y, SIDE - 3, y], fill=(130, 130, 130) if height == 5 else (218, 218, 218))
    write(pen, (left / 2, BASE - 5 * unit), "5", 11)
    tops, half = _tops(scene), _half(scene)
    if _has_bars(scene):
        for (x, y), colour in zip(tops, layout["colours"], strict=True):
            pen.rectangle([x - half, y, x + half, BASE], fill=PALETTE[colour], outline=INK)
    else:
        _draw_line(pen, tops, layout)
    pen.line([left, BASE, SIDE - 3, BASE], fill=INK)
    for (x, _), letter in zip(tops, LETTERS, strict=False):
        write(pen, (x, BASE + 9), letter, 12)
    return image


def _pitch(scene: Scene) -> float:
    return (SIDE - 3 - LEFT) / len(scene["content"]["heights"])


def _half(scene: Scene) -> float:
    """Half the width of a bar."""
    half: float = scene["layout"]["width"] * _pitch(scene) / 2
    return half


def _has_bars(scene: Scene) -> bool:
    return scene["content"]["type"] in ("difference", "sum")


def _tops(scene: Scene) -> list[tuple[float, float]]:
    """The points, or the tops of the bars, in pixels."""
    layout = scene["layout"]
    xs = [LEFT + (i + 0.5) * _pitch(scene) + shift for i, shift in enumerate(layout["shifts"])]
    return [(x, BASE - height * layout["unit"]) for x, height in zip(xs, scene["content"]["heights"], strict=True)]


def _draw_line(pen: ImageDraw.ImageDraw, points: list[tuple[float, float]], layout: dict[str, Any]) -> None:
    pen.line(points, fill=(90, 90, 90), width=2)
    radius = layout["radius"]
    for (x, y), colour in zip(points, layout["colours"], strict=True):
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=PALETTE[colour], outline=INK)


def ask(scene: Scene) -> tuple[str, str, AnswerType]:
    """The question, its answer and the answer's type."""
    kind, asked = scene["content"]["type"], scene["content"]["asked"]
    heights = _true_heights(scene)
    if kind == "highest":
        return "Which point is highest?", _largest(heights)[1], "choice"
    result = str(_result(kind, heights[asked[0]], heights[asked[1]])[-1])
    if kind == "difference":
        return f"How much taller is {asked[0]} than {asked[1]}?", result, "integer"
    if kind == "sum":
        return f"What do {asked[0]} and {asked[1]} add up to?", result, "integer"
    return f"By how much does the line rise from {asked[1]} to {asked[0]}?", result, "integer"


def solve(scene: Scene, writer: Writer) -> list[str]:
    """The steps of a solution, with claims chosen by the writer."""
    kind, true = scene["content"]["type"], _true_heights(scene)
    claimed = {letter: _claimed_height(true[letter], writer) for letter in scene["content"]["asked"] or true}
    facts = [f"{letter} is {height}" for letter, height in claimed.items()]
    if kind == "highest":
        letter = _largest(claimed)[1]
        others = sorted((other for other in claimed if other != letter), key=lambda other: -claimed[other])
        letter = writer("reasoning", "largest", letter, others)
        largest = f"[reasoning] the largest is {claimed[letter]} at {letter}"
        return [f"[perception] {' '.join(facts)}", largest, f"[answer] {letter}"]
    first, second = claimed.values()
    result = _result(kind, first, second)[-1]
    if kind == "sum":
        result = writer("reasoning", f"sum {result}", result, [result - 1, result + 1])
        derived = f"{first} + {second} = {result}"
    else:
        likely = dict.fromkeys((result - 1, result + 1, abs(result), first + second))
        near = [other for other in likely if other > 0 and other != result]
        result = writer("reasoning", f"difference {result}", result, near)
        derived = f"{first} - {second} = {result}"
    return [*(f"[perception] {fact}" for fact in facts), f"[reasoning] {derived}", f"[answer] {result}"]


def _claimed_height(height: int, writer: Writer) -> int:
    near = [h for h in (height + 1, height - 1, height + 2, height - 2) if 1 <= h <= TALLEST]
    return writer("perception", f"height {height}", height, near)


def parse_claim(scene: Scene, stated: dict[str, Any], step: Step) -> Claim | None:
    """The claim of a step about the scene; None if it does not parse."""
    kind, asked, heights = scene["content"]["type"], scene["content"]["asked"], _true_heights(scene)
    facts = [said for key, said in stated.items() if key.startswith("heights")]
    known = {letter: int(height) for fact in facts for letter, height in _HEIGHT.findall(fact)}
    if row := _HEIGHTS.fullmatch(step.text):
        letters, said_heights = zip(*_HEIGHT.findall(row[1]), strict=True)
        true_heights = [heights.get(letter) for letter in letters]
        true_row = " ".join(f"{c} is {height}" for c, height in zip(letters, true_heights, strict=True))
        return Claim(f"heights {' '.join(letters)}", row[1], true_row, parts=read_parts(said_heights, true_heights))
    if kind == "highest" and (largest := _LARGEST.fullmatch(step.text)):
        return Claim("result", (int(largest[1]), largest[2]), _largest(heights), _largest(known) if known else "")
    if asked and (result := _RESULT.fullmatch(step.text)):
        first, second = (known.get(letter) for letter in asked)
        said = (result[2], _operands(result[2], int(result[1]), int(result[3])), int(result[4]))
        true = _result(kind, heights[asked[0]], heights[asked[1]])
        return Claim("result", said, true, "" if first is None or second is None else _result(kind, first, second))
    if step.kind == "answer":
        implied = str(stated["result"][-1]) if "result" in stated else ""
        return Claim("answer", step.text.removeprefix("[answer] "), ask(scene)[1], implied)
    return None


def _true_heights(scene: Scene) -> dict[str, int]:
    return dict(zip(LETTERS, scene["content"]["heights"], strict=False))


def _largest(heights: dict[str, int]) -> tuple[int, str]:
    letter = max(heights, key=lambda letter: heights[letter])
    return heights[letter], letter


def _result(kind: str, first: int, second: int) -> tuple[str, list[int], int]:
    sign = "+" if kind == "sum" else "-"
    return sign, _operands(sign, first, second), first + second if kind == "sum" else first - second


def _operands(sign: str, first: int, second: int) -> list[int]:
    return sorted((first, second)) if sign == "+" else [first, second]


def changes(scene: Scene) -> list[Change]:
    """Another height of one bar or point, for which the question still has one answer."""
    content, found = scene["content"], []
    heights = content["heights"]
    first, second = (LETTERS.index(letter) for letter in content["asked"] or "AA")
    for i, height in enumerate(heights):
        for other in range(1, TALLEST + 1):
            changed = [*heights[:i], other, *heights[i + 1 :]]
            if other != height and _askable(content["type"], changed, first, second):
                found.append(Change(with_content(scene, heights=changed), (_column(scene, i),)))
    return found


def _column(scene: Scene, i: int) -> Region:
    """Where a bar or a point with its two lines may be."""
    xs = [x for x, _ in _tops(scene)]
    if _has_bars(scene):
        return Region(xs[i] - _half(scene) - 1, 0, xs[i] + _half(scene) + 1, BASE + 1)
    room = scene["layout"]["radius"] + 2
    return Region(xs[max(i - 1, 0)] - room, 0, xs[min(i + 1, len(xs) - 1)] + room, BASE + 1)


FAMILY = SyntheticFamily(
    "chart", 1, ("difference", "sum", "highest", "rise"), make, draw, ask, solve, parse_claim, changes=changes
)
