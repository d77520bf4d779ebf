"""The chat messages with which a server is asked about the last step, as a published dialogue of one turn per step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vlprm.images import png
from vlprm.published.inputs import PublishedInputs
from vlprm.published.protocol import ASKED, USER
from vlprm.schema import Problem, Step
from vlprm.serving.client import Message
from vlprm.serving.wire import ShownImage


def is_dialogue(inputs: PublishedInputs) -> bool:
    """Whether each step is a user turn that asks for a verdict."""
    return inputs.protocol.first.endswith(ASKED)


def dialogue(
    inputs: PublishedInputs, problem: Problem, steps: Sequence[Step], image_part: Callable[[bytes], ShownImage]
) -> list[Message]:
    """The turns up to the last step. Images are sent as the processor gets them."""
    protocol = inputs.protocol
    opening = protocol.lead.split(USER)[1]
    asked = protocol.first.removesuffix(ASKED).format(question=problem.question, step=steps[0].text)
    images = [image_part(png(inputs.opened(data))) for data in problem.images]
    shown = [*_text(opening), *images, *_text(asked)]
    turns: list[Message] = [{"role": "system", "content": inputs.prompt_text}, {"role": "user", "content": shown}]
    for step in steps[1:]:
        turns.append({"role": "assistant", "content": inputs.config.verdicts[0]})
        turns.append({"role": "user", "content": step.text})
    return turns


def _text(text: str) -> list[Message]:
    return [{"type": "text", "text": text}] if text else []
