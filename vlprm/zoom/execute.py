"""Zoom: parse a zoom step, validate its box, and return the region of a problem's image that it shows.

Model text is never evaluated: a strict JSON parser and typed refusals handle every text. All regions of a solution are
in pixels of the problem's images: a crop of a crop is a region of the original image.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlprm.errors import UserError
from vlprm.images import open_image, whole_pixels
from vlprm.schema import BLANK, Problem, Region, Step
from vlprm.steps import parse_step, untagged
from vlprm.zoom.boxes import Box, Size, frame_of, to_region
from vlprm.zoom.policy import TOOL_NAME, Form, Refusal, ZoomPolicy, refusal_text

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
# A call as the template of Qwen3.5 writes it; numbers and lists are JSON.
_PARAMETER = r"<parameter=([^>\n]*)>((?:(?!</?parameter).)*)</parameter>"
_XML_CALL = re.compile(rf"\s*<function={TOOL_NAME}>((?:\s*{_PARAMETER})*)\s*</function>\s*", re.DOTALL)
_XML_PARAMETER = re.compile(_PARAMETER, re.DOTALL)
_TEXTS = ("label", "source")  # parameters that are plain text
# Names of images, as Mini-o3 writes them: `original_image`, `observation_1`, ...
_ORIGINAL, _OBSERVATION = "original_image", "observation_"


@dataclass(frozen=True)
class Zoom:
    """A parsed zoom request: a box in the policy's dialect, the index of the image, and the policy's label."""

    box: Box
    image: int = 0
    label: str = ""


@dataclass(frozen=True)
class View:
    """An image that the policy can see: the region that it shows, in whole pixels, and its (width, height) as the
    vision tower sees it."""

    region: Region
    seen: Size


_NOTHING = View(Region(0, 0, 1, 1), (1, 1))  # placeholder view of a problem without images


def parse_zoom(text: str, form: Form = "tagged", problem_images: int = 1) -> Zoom | Refusal:
    """Parse the text of a zoom step, or return why it is not a valid zoom."""
    if form == "qwen_tool" and text.count(_OPEN) > 1:
        return "several_calls"
    body = _tagged(text) if form == "tagged" else _called(text)
    box = body.get("bbox_2d") if body is not None else None
    if body is None or not isinstance(box, list):
        return "bad_json"
    if len(box) != 4 or any(isinstance(v, bool) or not isinstance(v, int | float) for v in box):
        return "wrong_arity"
    try:
        x0, y0, x1, y1 = (float(v) for v in box)
    except OverflowError:
        return "non_finite"
    if not all(map(math.isfinite, (x0, y0, x1, y1))):
        return "non_finite"
    if not (x0 < x1 and y0 < y1):
        return "inverted"
    image, label = _image_number(body, problem_images), body.get("label")
    if image is None:
        return "unknown_image"
    return Zoom((x0, y0, x1, y1), image, label if isinstance(label, str) else "")


def _tagged(text: str) -> dict[str, Any] | None:
    """The JSON object after the tag; None for anything else."""
    return _object(untagged(text))


def _called(text: str) -> dict[str, Any] | None:
    """The arguments of a call of the zoom tool, which ends the paragraph, in JSON or in XML."""
    _, _, call = text.strip().partition(_OPEN)
    if not call.endswith(_CLOSE):
        return None
    call = call.removesuffix(_CLOSE)
    if written := _XML_CALL.fullmatch(call):
        return _parameters(written[1])
    body = _object(call)
    if body is None or body.get("name") != TOOL_NAME:
        return None
    given = body.get("arguments")
    if isinstance(given, str):  # some models write the arguments as a JSON text
        return _object(given)
    return given if isinstance(given, dict) else None


def _parameters(written: str) -> dict[str, Any] | None:
    """The parameters of an XML call; None if one is repeated."""
    pairs = [(name.strip(), value.strip()) for name, value in _XML_PARAMETER.findall(written)]
    given = {name: value if name in _TEXTS else _json(value) for name, value in pairs}
    return given if len(given) == len(pairs) else None


def _object(written: str) -> dict[str, Any] | None:
    """A JSON object; None for anything else, such as an object with a repeated field."""
    body = _json(written)
    return body if isinstance(body, dict) else None


def _json(written: str) -> Any:
    """The JSON value; None for anything else."""
    try:
        return json.loads(written, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) < len(pairs):
        raise UserError("a field is given twice")
    return body


def _image_number(body: dict[str, Any], problem_images: int) -> int | None:
    """The number of the image: `img_idx` counts the problem's images and then the crops, from 0; `source` gives a name.
    With neither, it is the first image; None for anything else."""
    named, number = body.get("source"), body.get("img_idx", 0)
    if named is None:
        whole = isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number < 1 << 31
        return int(number) if whole and number == int(number) else None
    if "img_idx" in body or not isinstance(named, str):
        return None
    if named == _ORIGINAL:
        return 0
    digits = named.removeprefix(_OBSERVATION)
    known = named.startswith(_OBSERVATION) and digits.isascii() and digits.isdigit() and len(digits) < 10
    return problem_images + int(digits) - 1 if known and int(digits) else None


def execute_zoom(
    step: Step, dialect: str, images: Sequence[View], crops: Sequence[View] = (), policy: ZoomPolicy | None = None
) -> Step | Refusal:
    """The step with the region that it shows, or the refusal. The policy can see the problem's `images` and the `crops`
    shown so far. The box is clipped to its image; then, as the `policy` declares, the region grows by its padding and
    to the minimum size, and is shifted into the image."""
    policy = policy or ZoomPolicy()
    zoom = parse_zoom(step.text, policy.form, len(images))
    if isinstance(zoom, str):
        return zoom
    view = _named(zoom, images, crops)
    if view is None:
        return "unknown_image"
    try:
        asked = to_region(zoom.box, dialect, view.region, view.seen)
    except ValueError:  # in pixels, distinct corners may coincide or overflow
        return "non_finite" if max(map(abs, zoom.box)) > 1e300 else "too_small"
    if asked.overlap(view.region) == 0:
        return "out_of_frame"
    source = view if view.region.image == BLANK else images[view.region.image]
    region = _fitted(_clipped(asked, view.region), source.region, policy)
    width, height = region.x1 - region.x0, region.y1 - region.y0
    if min(width, height) < policy.min_side:
        return "too_small"
    if max(width, height) > policy.max_aspect * min(width, height):
        return "aspect"
    if policy.refuse_duplicates and any(whole_pixels(region) == crop.region for crop in crops):
        return "duplicate"
    return dataclasses.replace(step, region=region)


def with_refusal_message(
    step: Step, refusal: Refusal, dialect: str, images: Sequence[View], crops: Sequence[View], policy: ZoomPolicy
) -> Step:
    """The step of a refused zoom with the message that its policy reads instead of a crop."""
    zoom = parse_zoom(step.text, policy.form, len(images))
    view = (None if isinstance(zoom, str) else _named(zoom, images, crops)) or next(iter(images), _NOTHING)
    frame = frame_of(dialect, view.seen)
    return dataclasses.replace(step, told=refusal_text(refusal, policy, frame, len(images) + len(crops)))


def _named(zoom: Zoom, images: Sequence[View], crops: Sequence[View]) -> View | None:
    in_sight = [*images, *crops]
    return in_sight[zoom.image] if zoom.image < len(in_sight) else None


def _clipped(region: Region, frame: Region) -> Region:
    return Region(
        max(region.x0, frame.x0), max(region.y0, frame.y0), min(region.x1, frame.x1), min(region.y1, frame.y1),
        frame.image,
    )  # fmt: skip


def _fitted(region: Region, frame: Region, policy: ZoomPolicy) -> Region:
    """The region with its padding and, if the policy expands, grown to the minimum sides, within the frame."""
    if not policy.padding and not policy.expand:
        return region
    width, height = ((1 + 2 * policy.padding) * side for side in (region.x1 - region.x0, region.y1 - region.y0))
    if policy.expand:
        least = max(policy.min_side, max(width, height) / policy.max_aspect)
        width, height = max(width, least), max(height, least)
    x0, x1 = _placed((region.x0 + region.x1) / 2, width, frame.x0, frame.x1)
    y0, y1 = _placed((region.y0 + region.y1) / 2, height, frame.y0, frame.y1)
    return Region(x0, y0, x1, y1, frame.image)


def _placed(centre: float, length: float, low: float, high: float) -> tuple[float, float]:
    """An interval of that length around the centre, shifted into the bounds and cut to them if it is longer."""
    length = min(length, high - low)
    start = min(max(centre - length / 2, low), high - length)
    return start, min(start + length, high)


def whole_images(problem: Problem) -> list[Region]:
    """The regions of the problem's full images."""
    return [Region(0, 0, *open_image(data).size, image=k) for k, data in enumerate(problem.images)]


def executed_steps(problem: Problem, texts: Sequence[str]) -> tuple[Step, ...]:
    """The steps of a solver's texts, with their zooms executed as in a rollout. A solver's boxes use the dialect
    relative_1000."""
    images = [View(region, (int(region.x1), int(region.y1))) for region in whole_images(problem)]
    steps = []
    for text in texts:
        step = parse_step(text)
        zoomed = execute_zoom(step, "relative_1000", images) if step.kind == "zoom" else step
        assert isinstance(zoomed, Step), f"{problem.id}: the solver's zoom is refused: {zoomed}"
        steps.append(zoomed)
    return tuple(steps)
