"""Chat messages that a server's template renders to the same text that `InputBuilder` makes in this process."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from vlprm.images import open_image, png, source_of
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.inputs import InputBuilder
from vlprm.prompts import user_text
from vlprm.schema import Problem, Region, Step
from vlprm.serving.client import Message, user_turn
from vlprm.serving.wire import ShownImage
from vlprm.steps import parse_step, turns_of
from vlprm.zoom.boxes import NO_DIALECT
from vlprm.zoom.policy import ZoomPolicy

PROBED_SIDE = 1448  # side of a square of two megapixels
ZOOMS_DIFFER = (
    "its chat template shows a crop, or the turn before it, otherwise than in training; run the model in this process,"
    " or set zoom.max_zooms to 0 in its vlprm.json if it never zooms"
)


def messages(
    problem: Problem,
    steps: Sequence[Step],
    inputs: InputBuilder,
    shown: Callable[[bytes, Region | None, ZoomPolicy], ShownImage],
) -> list[Message]:
    """The turns of a problem and steps. A zoom ends its turn; the next turn shows its crop or the message about its
    refusal. Steps after the last zoom form a turn to be continued."""
    zoom = inputs.config.zoom
    images = [shown(image, None, zoom) for image in problem.images]
    turns = [user_turn(images, user_text(inputs.config.prompt_template, problem))]
    for written in turns_of(steps):
        turns.append({"role": "assistant", "content": inputs.text.turn(written)})
        last = written[-1]
        if last.ends_turn:
            crops = last.region and [shown(source_of(problem.images, last.region), last.region, zoom)]
            turns.append(_observation(user_turn(crops or [], last.told), zoom))
    return turns


def _observation(turn: Message, policy: ZoomPolicy) -> Message:
    if policy.observer == "user":
        return turn
    return {**turn, "role": policy.observer, "tool_call_id": "zoom"}  # the protocol requires an id


def tools_of(checkpoint_config: CheckpointConfig) -> dict[str, Any]:
    """Request fields for the model's tools: the template shows them, and the server leaves tool calls in the text."""
    return {"tools": checkpoint_config.zoom.tools, "tool_choice": "none"} if checkpoint_config.zoom.tools else {}


def with_question(turns: Sequence[Message], question: str) -> list[Message]:
    """The turns followed by a user's turn with a question. After a crop, an empty assistant turn goes between."""
    begun: list[Message] = [] if turns[-1]["role"] == "assistant" else [{"role": "assistant", "content": ""}]
    return [*turns, *begun, user_turn([], question)]


def probe_problem(inputs: InputBuilder) -> Problem:
    """A question with an image below and an image above the declared pixel limits, to test a server's resizing. Images
    larger than `PROBED_SIDE` are not probed, because some servers do not accept their number of tokens."""
    least, most = inputs.pixel_limits or (32 * 32, 128 * 128)
    sides = (max(8, math.isqrt(least) // 2), min(2 * math.isqrt(most), PROBED_SIDE))[: inputs.most_images]
    return Problem("probe", "probe", "1", tuple(png(Image.new("RGB", (side, side))) for side in sides), None, "word")


def probe_steps(inputs: InputBuilder, problem: Problem) -> list[tuple[Step, ...]]:
    """Beginnings of a solution that test a server's template: one step and, for a model that may zoom, a zoom with its
    crop before the step."""
    last, zoom = parse_step("2"), inputs.config.zoom
    if inputs.config.dialect == NO_DIALECT or not zoom.max_zooms:
        return [(last,)]
    region = Region(0, 0, *open_image(problem.images[0]).size)
    return [(last,), (Step("zoom", zoom.example((1000, 1000)), region), last)]
