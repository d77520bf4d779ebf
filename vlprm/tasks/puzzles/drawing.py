"""Drawings of the categories on a white sheet of 512 x 512 pixels, with flat pastel colors, as in PuzzleVQA."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image, ImageDraw

from vlprm.tasks.puzzles.words import UNKNOWN
from vlprm.tasks.scene import write

SIDE = 512
INK = "black"
GREY = "#eeeeee"  # the colour of unknown cells
# From very light to dark: the third is what a question calls by the color's name alone.
HUES = {
    "red": ("#f4cccc", "#ea9999", "#e06666", "#cc0000"),
    "orange": ("#fce5cd", "#f9cb9c", "#f6b26b", "#e69138"),
    "yellow": ("#fff2cc", "#ffe599", "#ffd966", "#f1c232"),
    "green": ("#d9ead3", "#b6d7a8", "#93c47d", "#6aa84f"),
    "blue": ("#cfe2f3", "#9fc5e8", "#6fa8dc", "#3d85c6"),
    "purple": ("#d9d2e9", "#b4a7d6", "#8e7cc3", "#674ea7"),
}
CORNERS = {"triangle": 3, "square": 4, "pentagon": 5, "hexagon": 6}
RADII = {"small": 23, "medium": 43, "large": 62}
HEIGHTS = {"short": 125, "medium": 250, "long": 375}

Point = tuple[float, float]


def jitter(rng: random.Random) -> dict[str, float]:
    """Where and how large a drawing is, how wide its lines and how large its letters, and where a spiral starts."""
    return {
        "x": rng.uniform(-10, 10),
        "y": rng.uniform(-10, 10),
        "scale": rng.uniform(0.92, 1.02),
        "line": rng.choice((2, 3, 4)),
        "letters": rng.uniform(0.95, 1.3),
        "turn": rng.uniform(0, 120),
    }


class Sheet:
    """An image to draw on. Points are relative to its centre, before the layout's jitter; y grows downwards."""

    def __init__(self, layout: dict[str, Any]) -> None:
        self.image = Image.new("RGB", (SIDE, SIDE), "white")
        self.turn = layout["turn"]
        self._pen, self._layout = ImageDraw.Draw(self.image), layout

    def _at(self, x: float, y: float) -> Point:
        scale = self._layout["scale"]
        return SIDE / 2 + x * scale + self._layout["x"], SIDE / 2 + y * scale + self._layout["y"]

    def circle(self, x: float, y: float, radius: float, fill: str | None) -> None:
        """A circle; without a fill, its outline alone."""
        self._pen.circle(self._at(x, y), radius * self._layout["scale"], fill, INK, self._layout["line"])

    def polygon(self, points: Sequence[Point], fill: str | None) -> None:
        """A polygon; without a fill, its outline alone."""
        corners = [self._at(*point) for point in points]
        if fill:
            self._pen.polygon(corners, fill=fill)
        self._pen.line([*corners, *corners[:2]], fill=INK, width=self._layout["line"], joint="curve")

    def box(self, x: float, y: float, width: float, height: float, fill: str) -> None:
        """A rectangle with round corners, around its centre."""
        corners = [*self._at(x - width / 2, y - height / 2), *self._at(x + width / 2, y + height / 2)]
        self._pen.rounded_rectangle(corners, 20, fill, INK, self._layout["line"])

    def line(self, *points: Point) -> None:
        """A line through points."""
        self._pen.line([self._at(*point) for point in points], fill=INK, width=self._layout["line"])

    def write(self, x: float, y: float, text: str, size: int = 42) -> None:
        """Text around a point."""
        write(self._pen, self._at(x, y), text, round(size * self._layout["letters"]), INK)


def _around(count: int, radius: float, start: float) -> list[Point]:
    """Points on a circle around the centre, clockwise from an angle in degrees, which are clockwise from the right."""
    angles = [math.radians(start + 360 * i / count) for i in range(count)]
    return [(radius * math.cos(a), radius * math.sin(a)) for a in angles]


def _regular(x: float, y: float, corners: int, radius: float, start: float = 0) -> list[Point]:
    return [(x + dx, y + dy) for dx, dy in _around(corners, radius, start)]


def _upright(shape: str) -> float:
    """The angle at which a shape has its first corner: a square and a hexagon stand on a side, others point upwards."""
    return {"square": 45, "hexagon": 0}.get(shape, -90)


def _grid(pitch: float) -> list[Point]:
    return [(column * pitch, row * pitch) for row in (-1, 0, 1) for column in (-1, 0, 1)]


def _color(name: str) -> str:
    return GREY if name == UNKNOWN else HUES[name][2]


def _circle_size_number(sheet: Sheet, content: dict[str, Any]) -> None:
    for (size, number), (x, y) in zip(content["cells"], _around(6, 150, -120), strict=True):
        sheet.circle(x, y, 49 + 4 * content["radii"][size], GREY)
        sheet.write(x, y, number)


def _color_grid(sheet: Sheet, content: dict[str, Any]) -> None:
    for (color,), (x, y) in zip(content["cells"], _grid(126), strict=True):
        if color == UNKNOWN:
            sheet.write(x, y, UNKNOWN)
        else:
            sheet.circle(x, y, 50, _color(color))


def _size_grid(sheet: Sheet, content: dict[str, Any]) -> None:
    for (size,), at in zip(content["cells"], _grid(126), strict=True):
        _sized_circle(sheet, size, at, {"small": 16, "medium": 26, "large": 50})


def _sized_circle(sheet: Sheet, size: str, at: Point, radii: dict[str, int]) -> None:
    if size == UNKNOWN:
        sheet.write(*at, UNKNOWN)
    else:
        sheet.circle(*at, radii[size], HUES["yellow"][0])


def _sectors(sheet: Sheet, fills: Sequence[str], texts: Sequence[str]) -> None:
    """A hexagon of six triangles, anti-clockwise from the upper right."""
    corners = _around(6, 168, 0)
    for i, (fill, text) in enumerate(zip(fills, texts, strict=True)):
        a, b = corners[-i % 6], corners[-i - 1]
        sheet.polygon([(0, 0), a, b], fill)
        sheet.write((a[0] + b[0]) / 3, (a[1] + b[1]) / 3, text)


def _color_hexagon(sheet: Sheet, content: dict[str, Any]) -> None:
    colors = [cell[0] for cell in content["cells"]]
    _sectors(sheet, list(map(_color, colors)), [UNKNOWN if color == UNKNOWN else "" for color in colors])


def _color_number_hexagon(sheet: Sheet, content: dict[str, Any]) -> None:
    _sectors(sheet, [HUES[color][1] for color, _ in content["cells"]], [number for _, number in content["cells"]])


def _color_overlap_squares(sheet: Sheet, content: dict[str, Any]) -> None:
    first, below, middle, above, last = (_color(cell[0]) for cell in content["cells"])
    half, reach = 88, 124
    for x, y, fill in ((-half, half, first), (half, -half, last)):
        sheet.polygon(_regular(x, y, 4, reach), fill)
    sheet.polygon(_regular(0, 0, 4, half * math.sqrt(2), 45), middle)
    for x, y, fill in ((-half, half, below), (half, -half, above)):
        sheet.polygon([(x, y), (x - math.copysign(reach, x), y), (x, y - math.copysign(reach, y))], fill)
    x = -half if content["cells"][0][0] == UNKNOWN else half
    sheet.write(x + math.copysign(36, x), -x - math.copysign(36, x), UNKNOWN)


def _color_size_circle(sheet: Sheet, content: dict[str, Any]) -> None:
    shade, color = content["cells"][2]
    fills = HUES[color][1:] if shade == "dark" else HUES[color][2::-1]
    for radius, fill in zip((200, 149, 98), reversed(fills), strict=True):
        sheet.circle(0, 0, radius, fill)
    sheet.circle(0, 0, 50, GREY)
    sheet.write(0, 0, UNKNOWN)


def _grid_number(sheet: Sheet, content: dict[str, Any]) -> None:
    for (number,), (x, y) in zip(content["cells"], _grid(126), strict=True):
        sheet.box(x, y, 124, 124, HUES["blue"][0])
        sheet.write(x, y, number, 56)


def _grid_number_color(sheet: Sheet, content: dict[str, Any]) -> None:
    for (number, color), (x, y) in zip(content["cells"], _grid(151), strict=True):
        sheet.box(x, y, 149, 149, _color(color))
        sheet.write(x, y, UNKNOWN if color == UNKNOWN else number, 48)


def _pyramid() -> list[Point]:
    return [((column - row / 2) * 150, (row - 1) * 130) for row in range(3) for column in range(row + 1)]


def _polygon_sides_color(sheet: Sheet, content: dict[str, Any]) -> None:
    for (sides, color), (x, y) in zip(content["cells"], _pyramid(), strict=True):
        sheet.polygon(_regular(x, y, int(sides), 59), _color(color))
        sheet.write(x, y, UNKNOWN if color == UNKNOWN else "")


def _polygon_sides_number(sheet: Sheet, content: dict[str, Any]) -> None:
    for (sides, number), (x, y) in zip(content["cells"], _pyramid(), strict=True):
        sheet.polygon(_regular(x, y, int(sides), 57), HUES["purple"][0])
        sheet.write(x, y, number)


def _bars(sheet: Sheet, content: dict[str, Any]) -> None:
    colored = content["type"] == "rectangle_height_color"
    for i, (length, value) in enumerate(content["cells"]):
        x = (i - 3) * 63
        sheet.box(x, 0, 61, HEIGHTS[length], _color(value) if colored else HUES["green"][0])
        sheet.write(x, 0, "" if colored and value != UNKNOWN else value)


def _distance(shape: str, angle: float) -> float:
    """The distance of a shape's outline from its centre, 1 at its corners."""
    if shape == "circle":
        return 1.0
    step = 2 * math.pi / CORNERS[shape]
    within = (angle - math.radians(_upright(shape))) % step - step / 2
    return math.cos(step / 2) / math.cos(within)


def _shape_morph(sheet: Sheet, content: dict[str, Any]) -> None:
    first, last = content["ends"]
    for i, (x, y) in enumerate(_grid(126)):
        stage = i // 3 + i % 3
        if content["cells"][stage][0] == UNKNOWN:
            sheet.write(x, y, UNKNOWN)
        elif i != 4:
            angles = [math.radians(degrees) for degrees in range(0, 360, 3)]
            reach = [50 * (_distance(first, a) * (4 - stage) + _distance(last, a) * stage) / 4 for a in angles]
            outline = [(x + r * math.cos(a), y + r * math.sin(a)) for a, r in zip(angles, reach, strict=True)]
            sheet.polygon(outline, HUES["red"][0])


def _shape_reflect(sheet: Sheet, content: dict[str, Any]) -> None:
    sheet.line((-190, 0), (190, 0))
    for i, (shape,) in enumerate(content["cells"]):
        x, y, side = (i % 3 - 1) * 128, (-85, 85)[i // 3], (1, -1)[i // 3]
        if shape == UNKNOWN:
            for start in range(0, 360, 30):
                sheet.line(*_arc(x, y, 50, start, start + 15))
            sheet.write(x, y, UNKNOWN)
        else:
            corners = _regular(0, 0, CORNERS[shape], 50, _upright(shape) if shape == "square" else -90)
            sheet.polygon([(x + dx, y + dy * side) for dx, dy in corners], HUES["green"][0])


def _arc(x: float, y: float, radius: float, start: int, end: int) -> list[Point]:
    angles = [math.radians(degrees) for degrees in range(start, end + 1, 5)]
    return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]


def _shape(sheet: Sheet, shape: str, size: str, at: Point, fill: str) -> None:
    sheet.polygon(_regular(*at, CORNERS[shape], RADII[size], _upright(shape)), fill)


def _shape_size_grid(sheet: Sheet, content: dict[str, Any]) -> None:
    for cell, at in zip(content["cells"], _grid(126), strict=True):
        if UNKNOWN in cell:
            sheet.write(*at, UNKNOWN)
        else:
            _shape(sheet, cell[0], cell[1], at, HUES["green"][0])


def _shape_size_hexagon(sheet: Sheet, content: dict[str, Any]) -> None:
    for (shape, size), at in zip(content["cells"][:6], _around(6, 168, 0), strict=True):
        _shape(sheet, shape, size, at, HUES["orange"][0])
    sheet.write(0, 0, UNKNOWN, 60)


def _size_cycle(sheet: Sheet, content: dict[str, Any]) -> None:
    for arm, cell in enumerate(content["cells"]):
        for place, size in enumerate(cell):
            (at,) = _around(1, (56, 122, 198)[place], sheet.turn + 120 * arm + 22 * place)
            _sized_circle(sheet, size, at, {"small": 23, "medium": 36, "large": 50})


def _triangle(sheet: Sheet, content: dict[str, Any]) -> None:
    for (x, y), group in zip(((-112, -155), (78, -45), (-112, 65)), content["cells"], strict=True):
        corners = [(x, y), (x, y + 88), (x + 75, y + 44)]
        sheet.polygon(corners, None)
        for at, number in zip(corners, group, strict=True):
            sheet.circle(*at, 32, HUES["blue"][0])
            sheet.write(*at, number, 34)


def _venn(sheet: Sheet, content: dict[str, Any]) -> None:
    for fill in (HUES["blue"][0], None):
        for x in (-120, 0, 120):
            sheet.circle(x, 0, 93, fill)
    for x, (number,) in zip((-128, -60, 0, 60, 128), content["cells"], strict=True):
        sheet.write(x, 0, number, 34)


DRAWINGS: dict[str, Callable[[Sheet, dict[str, Any]], None]] = {
    "circle_size_number": _circle_size_number,
    "color_grid": _color_grid,
    "color_hexagon": _color_hexagon,
    "color_number_hexagon": _color_number_hexagon,
    "color_overlap_squares": _color_overlap_squares,
    "color_size_circle": _color_size_circle,
    "grid_number": _grid_number,
    "grid_number_color": _grid_number_color,
    "polygon_sides_color": _polygon_sides_color,
    "polygon_sides_number": _polygon_sides_number,
    "rectangle_height_color": _bars,
    "rectangle_height_number": _bars,
    "shape_morph": _shape_morph,
    "shape_reflect": _shape_reflect,
    "shape_size_grid": _shape_size_grid,
    "shape_size_hexagon": _shape_size_hexagon,
    "size_cycle": _size_cycle,
    "size_grid": _size_grid,
    "triangle": _triangle,
    "venn": _venn,
}
