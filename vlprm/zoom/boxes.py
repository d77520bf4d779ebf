"""Box dialects: convert between the numbers that a model writes for a box and regions of the original image."""

from __future__ import annotations

from collections.abc import Callable

from vlprm.errors import UserError
from vlprm.schema import Region

Box = tuple[float, float, float, float]


Size = tuple[int, int]


# How checkpoints write boxes. A checkpoint declares its dialect; it is never guessed from the values. Each function
# maps an image's (width, height) as the vision tower sees it to the maximum x and y of the dialect.
DIALECTS: dict[str, Callable[[Size], tuple[float, float]]] = {
    "absolute_resized": lambda seen: seen,
    "relative_1000": lambda seen: (1000, 1000),
    "relative_1": lambda seen: (1, 1),
}


NO_DIALECT = "none"  # the model's dialect is unknown: it is not asked for boxes


def to_region(box: Box, dialect: str, shown: Region, seen: Size) -> Region:
    """The region of a model's box on an image that shows the region `shown` (a whole image, or a crop of whole pixels).
    `seen` is that image's (width, height) as the vision tower sees it. UserError if the corners are not in order."""
    width, height = frame_of(dialect, seen)
    sx, sy = (shown.x1 - shown.x0) / width, (shown.y1 - shown.y0) / height
    x0, y0, x1, y1 = box
    return Region(shown.x0 + x0 * sx, shown.y0 + y0 * sy, shown.x0 + x1 * sx, shown.y0 + y1 * sy, shown.image)


def frame_of(dialect: str, seen: Size) -> tuple[float, float]:
    """The width and height of the image in the numbers of a dialect. UserError for an unknown dialect."""
    if dialect not in DIALECTS:
        raise UserError(f"unknown box dialect {dialect!r}; declare one of {', '.join(DIALECTS)} in vlprm.json")
    return DIALECTS[dialect](seen)
