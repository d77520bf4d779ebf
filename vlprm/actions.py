"""Zoom: parse a zoom step, validate its box, and give the region of the original image that it shows.

Text of models is never evaluated: a strict JSON parser and typed refusals.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Literal, get_args

from vlprm.images import Box, Size, to_region
from vlprm.schema import Region, Step

Refusal = Literal["bad_json", "wrong_arity", "non_finite", "inverted", "too_small", "aspect", "out_of_frame"]
REFUSALS: tuple[str, ...] = get_args(Refusal)
MIN_SIDE = 8  # pixels of the original image
MAX_ASPECT = 100  # Qwen-VL's image processor refuses more than 200

_TAG = "[zoom]"


def parse_box(text: str) -> Box | Refusal:
    """The four numbers of a zoom step's text `[zoom] {"bbox_2d": [x0, y0, x1, y1], ...}`, or why there are none."""
    try:
        body = json.loads(text.strip().removeprefix(_TAG))
    except (ValueError, RecursionError):
        return "bad_json"
    box = body.get("bbox_2d") if isinstance(body, dict) else None
    if not isinstance(box, list):
        return "bad_json"
    if len(box) != 4 or any(isinstance(v, bool) or not isinstance(v, int | float) for v in box):
        return "wrong_arity"
    try:
        numbers = tuple(float(v) for v in box)
    except OverflowError:
        return "non_finite"
    if not all(math.isfinite(v) for v in numbers):
        return "non_finite"
    x0, y0, x1, y1 = numbers
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else "inverted"


def execute_zoom(step: Step, dialect: str, original: Size, resized: Size) -> Step | Refusal:
    """The step with the region it shows, clipped to the image; or the refusal.

    `original` and `resized` are the (width, height) of the image file and of what the vision tower saw.
    """
    box = parse_box(step.text)
    if isinstance(box, str):
        return box
    try:
        asked = to_region(box, dialect, original, resized)
    except ValueError:  # corners that were apart as written fall together, or leave the numbers, in pixels
        return "non_finite" if max(map(abs, box)) > 1e300 else "too_small"
    frame = Region(0, 0, *original)
    if asked.overlap(frame) == 0:
        return "out_of_frame"
    seen = Region(max(asked.x0, 0), max(asked.y0, 0), min(asked.x1, frame.x1), min(asked.y1, frame.y1))
    sides = seen.x1 - seen.x0, seen.y1 - seen.y0
    if min(sides) < MIN_SIDE:
        return "too_small"
    if max(sides) > MAX_ASPECT * min(sides):
        return "aspect"
    return dataclasses.replace(step, region=seen)
