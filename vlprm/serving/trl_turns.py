"""A problem and steps as TRL's messages with images: what its trainers' `prompt` and `completion` columns hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlprm.data.importing import from_data_url
from vlprm.model.inputs import InputBuilder
from vlprm.schema import Problem, Step
from vlprm.serving.messages import messages, with_question
from vlprm.serving.wire import ShownImage, data_url


def trl_turns(
    problem: Problem, steps: Sequence[Step], inputs: InputBuilder, question: str = ""
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The turns of a problem, of steps and of a question about them, and the images that they mark: the problem's, then
    the crops."""
    turns = messages(problem, steps, inputs, lambda *image: ShownImage(data_url(*image)))
    if question:
        turns = with_question(turns, question)
    images = [part for turn in turns for part in turn["content"] if isinstance(part, ShownImage)]
    return (
        [trl_turn(turn["role"], turn["content"]) for turn in turns],
        [{"bytes": from_data_url(image.url.decode()), "path": None} for image in images],
    )


def trl_turn(role: str, content: str | Sequence[Any]) -> dict[str, Any]:
    """A turn of text, or of the parts of a message."""
    parts: Sequence[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return {
        "role": role,
        "content": [
            {"type": "image", "text": None} if isinstance(part, ShownImage) else {"type": "text", "text": part["text"]}
            for part in parts
        ],
    }
