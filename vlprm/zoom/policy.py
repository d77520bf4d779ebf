"""The zoom settings of a checkpoint: how a zoom is written, which boxes are refused, how a crop is shown, and limits.
They are the field `zoom` of `vlprm.json`; docs/zoom.md has the table of refusals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from PIL import Image

from vlprm.errors import UserError
from vlprm.images import crop, crop_box
from vlprm.schema import Region

# How a policy writes a zoom: a paragraph `[zoom] {"bbox_2d": ...}`, or Qwen3-VL's own tool call (Qwen-Agent's
# `image_zoom_in_tool`), whose crop goes back as a tool's response.
Form = Literal["tagged", "qwen_tool"]
Refusal = Literal[
    "bad_json", "several_calls", "wrong_arity", "non_finite", "inverted", "too_small", "aspect", "out_of_frame",
    "unknown_image", "duplicate", "budget",
]  # fmt: skip
REFUSALS: tuple[str, ...] = get_args(Refusal)
TOOL_NAME = "image_zoom_in_tool"


@dataclass(frozen=True)
class ZoomPolicy:
    """How a policy zooms. The defaults match the built-in models: boxes are clipped to the image, and crops are shown
    unscaled. Pixels are those of the problem's images.

    Args:
        form: how the policy writes a zoom and in which turn its crop is shown.
        min_side: minimum length of the shorter side in pixels.
        max_aspect: maximum ratio of long to short side; the image processors of Qwen-VL accept up to 200.
        expand: grow a region that is too small or too long around its centre, shifted into the image, before it is
            refused.
        padding: share of its width and height by which a region grows on each side.
        enlarge: factor by which the sides of a crop are enlarged, up to `max_crop_pixels`.
        max_crop_pixels: larger crops are shrunk to this many pixels (0: the processor's limit).
        max_zooms: maximum number of zooms per solution that get a crop or a message.
        max_images: maximum number of images per solution, including the problem's (0: no limit).
        max_crop_tokens: maximum number of image tokens of all crops of a solution (0: no limit).
        refuse_duplicates: refuse a region that an earlier zoom has shown.
        on_refusal: stop: a refused zoom ends its solution without a result; tell: the policy gets a message and may try
            again.
    """

    form: Form = "tagged"
    min_side: int = 8
    max_aspect: float = 100
    expand: bool = False
    padding: float = 0.0
    enlarge: float = 1.0
    max_crop_pixels: int = 0
    max_zooms: int = 4
    max_images: int = 0
    max_crop_tokens: int = 0
    refuse_duplicates: bool = False
    on_refusal: Literal["stop", "tell"] = "stop"

    def __post_init__(self) -> None:
        if not (self.min_side >= 1 and 1 <= self.max_aspect <= 200 and self.padding >= 0 and self.enlarge >= 1):
            raise UserError("zoom: give min_side >= 1, max_aspect from 1 to 200, padding >= 0 and enlarge >= 1")
        if min(self.max_zooms, self.max_images, self.max_crop_tokens, self.max_crop_pixels) < 0:
            raise UserError("zoom: limits must be 0 or more")
        if self.enlarge > 1 and not self.max_crop_pixels:
            raise UserError("zoom: enlarge without max_crop_pixels has no bound; set max_crop_pixels")

    def crop(self, image: Image.Image, region: Region) -> Image.Image:
        """The crop of a region as the model sees it: enlarged by `enlarge`, at most `max_crop_pixels` large."""
        part, size = crop(image, region), self.crop_size(image.size, region)
        return part if size == part.size else part.resize(size, Image.Resampling.BICUBIC)

    def crop_size(self, size: tuple[int, int], region: Region) -> tuple[int, int]:
        """(width, height) of the crop of a region of an image of this size."""
        left, top, right, bottom = crop_box(size, region)
        width, height, scale = right - left, bottom - top, self.enlarge
        if self.max_crop_pixels:
            scale = min(scale, math.sqrt(self.max_crop_pixels / (width * height)))
        return (width, height) if scale == 1 else (max(1, int(width * scale)), max(1, int(height * scale)))

    @property
    def tools(self) -> list[dict[str, Any]]:
        """Tool declarations for the chat template."""
        return [ZOOM_TOOL] if self.form == "qwen_tool" else []

    @property
    def observer(self) -> str:
        """Role of the turn that shows a crop."""
        return "tool" if self.form == "qwen_tool" else "user"

    def example(self, frame: tuple[float, float]) -> str:
        """An example zoom in the policy's form: the left half of an image of that size."""
        box = f'"bbox_2d": [0, 0, {frame[0] / 2:g}, {frame[1]:g}], "label": "left half"'
        if self.form == "tagged":
            return f"[zoom] {{{box}}}"
        return f'<tool_call>\n{{"name": "{TOOL_NAME}", "arguments": {{{box}, "img_idx": 0}}}}\n</tool_call>'


# The declaration that Qwen-Agent gives Qwen3-VL.
ZOOM_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": TOOL_NAME,
        "description": "Zoom in on a specific region of an image by cropping it based on a bounding box (bbox) and an"
        " optional object label",
        "parameters": {
            "type": "object",
            "properties": {
                "bbox_2d": {
                    "type": "array",
                    "items": {"type": "number"},
                    "minItems": 4,
                    "maxItems": 4,
                    "description": "The bounding box of the region to zoom in, as [x1, y1, x2, y2], where (x1, y1) is"
                    " the top-left corner and (x2, y2) is the bottom-right corner",
                },
                "label": {"type": "string", "description": "The name or label of the object in the bounding box"},
                "img_idx": {"type": "number", "description": "The index of the zoomed-in image (starting from 0)"},
            },
            "required": ["bbox_2d", "label", "img_idx"],
        },
    },
}

_SAID: dict[Refusal, str] = {
    "bad_json": "this is not a zoom; write it as {example}",
    "several_calls": "one zoom is shown at a time; write one call, as {example}",
    "wrong_arity": "bbox_2d takes four numbers, as in {example}",
    "non_finite": "the box has a number that is not finite; the image goes from 0 to {width:g} and from 0 to"
    " {height:g}",
    "inverted": "the box needs x0 < x1 and y0 < y1; the first corner is the upper left",
    "too_small": "the region is too small to be shown; ask for a larger one",
    "aspect": "the region is too long and narrow to be shown; ask for one more like a square",
    "out_of_frame": "the box is outside the image, which goes from 0 to {width:g} and from 0 to {height:g}",
    "unknown_image": "there is no such image; there are {images}, counted from 0",
    "duplicate": "this region was shown before; look at another one, or answer",
    "budget": "no more images can be shown; answer from what you have seen",
}


def refusal_text(refusal: Refusal, policy: ZoomPolicy, frame: tuple[float, float], images: int) -> str:
    """The message to a policy about a refused zoom, in the numbers of its dialect. `frame` is the image's width and
    height in them, `images` the number of images it can name."""
    said = _SAID[refusal].format(example=policy.example(frame), width=frame[0], height=frame[1], images=images)
    return f"{refusal}: {said}"
