"""Values that puzzles show, and what each is most easily taken for."""

from __future__ import annotations

import re

COLORS = ("red", "orange", "yellow", "green", "blue", "purple")
SIZES = ("small", "medium", "large")
LENGTHS = ("short", "medium", "long")
SHADES = ("medium", "dark", "very dark", "light", "very light")
SHAPES = ("triangle", "square", "pentagon", "hexagon")
MORPHS = (*SHAPES, "circle")
TOWARDS = ("darker", "lighter")

# Values by kind, with similar ones side by side. Numbers and sides are not listed.
KINDS: dict[str, tuple[str, ...]] = {
    "color": COLORS,
    "size": SIZES,
    "length": LENGTHS,
    "shade": SHADES,
    "shape": MORPHS,
    "stage": (*MORPHS, "mixed", *(f"near {shape}" for shape in MORPHS)),
    "towards": TOWARDS,
}
UNKNOWN = "?"
Cell = tuple[str, ...]  # the values of one part of a picture; UNKNOWN for the missing one


def confusions(kind: str, value: str) -> list[str]:
    """Other values of a kind, the most similar first; four for a number."""
    if kind in ("number", "sides"):
        least, number = (3 if kind == "sides" else 0), number_of(value)
        return [str(number + d) for d in (1, -1, 2, -2) if number + d >= least]
    values = KINDS[kind]
    place = values.index(value) if value in values else 0
    others = [other for other in values if other != value]
    return sorted(others, key=lambda other: abs(values.index(other) - place))


def number_of(text: str) -> int:
    """The whole number of a text; 0 for any other text."""
    return int(text) if re.fullmatch(r"-?[0-9]{1,4}", text) else 0


def item_of(cell: Cell) -> str:
    """A cell as a reading says it."""
    return " ".join(cell)


def cell_of(item: str, values: int) -> Cell:
    """The cell of an item that says this many values, of which only the first may have several words. Fewer if the
    item has fewer words."""
    return tuple(item.rsplit(" ", values - 1))
