"""Drawing and seeded randomness for the synthetic families: one palette, one font, one random number generator."""

from __future__ import annotations

import hashlib
import math
import random
from functools import lru_cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from vlprm.errors import UserError

SIDE = 128  # pixels; a model with a limit of 128 x 128 does not resize such an image

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "orange": (255, 140, 20),
    "yellow": (240, 215, 40),
    "green": (44, 150, 60),
    "blue": (40, 90, 200),
    "purple": (140, 70, 180),
}
COLOURS = tuple(PALETTE)
SHAPES = ("circle", "square", "triangle", "diamond", "star")
INK = (30, 30, 30)

# The most likely confusion of each colour and shape.
NEAR_COLOUR = {
    "red": "orange",
    "orange": "red",
    "yellow": "orange",
    "green": "blue",
    "blue": "purple",
    "purple": "blue",
}
NEAR_SHAPE = {"circle": "square", "square": "circle", "triangle": "diamond", "diamond": "triangle", "star": "triangle"}
PAPER = (250, 250, 248)


def rng_for(*parts: object) -> random.Random:
    """A generator that depends only on the parts: the same on every machine and in every process."""
    return random.Random(int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big"))


def canvas(side: int = SIDE) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty image and its drawing context."""
    image = Image.new("RGB", (side, side), PAPER)
    return image, ImageDraw.Draw(image)


def write(draw: ImageDraw.ImageDraw, centre: tuple[float, float], text: str, size: int, fill: Any = INK) -> None:
    """Draw text centred at a point, in Pillow's built-in font, so that no font file is needed."""
    draw.text(centre, text, fill=fill, font=_font(size), anchor="mm")


@lru_cache(maxsize=64)
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def draw_shape(
    draw: ImageDraw.ImageDraw, shape: str, centre: tuple[float, float], radius: float, fill: tuple[int, int, int]
) -> None:
    """Draw a filled shape around a centre. UserError for an unknown shape."""
    x, y = centre
    if shape == "circle":
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill, outline=INK)
    elif shape == "square":
        r = radius * 0.9
        draw.rectangle([x - r, y - r, x + r, y + r], fill=fill, outline=INK)
    else:
        draw.polygon(_corners(shape, x, y, radius), fill=fill, outline=INK)


def _corners(shape: str, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    if shape == "triangle":
        angles, radii = [-90, 30, 150], [1.1] * 3
    elif shape == "diamond":
        angles, radii = [-90, 0, 90, 180], [1.15, 0.8, 1.15, 0.8]
    elif shape == "star":
        angles, radii = [-90 + 36 * i for i in range(10)], [1.15, 0.5] * 5
    else:
        raise UserError(f"unknown shape {shape!r}; known: {', '.join(SHAPES)}")
    return [
        (x + radius * r * math.cos(math.radians(a)), y + radius * r * math.sin(math.radians(a)))
        for a, r in zip(angles, radii, strict=True)
    ]
