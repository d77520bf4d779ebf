"""The inputs of a published reward model: the tokens that its public reader makes, as segments of a tree.

The prompt's segment ends with the last control token before the question (the end of the images), so that it is the
same for all solutions; the question opens the first step's segment, since a tokenizer may merge its end with a step's
beginning. A step's segment ends at the token where the step is scored; the next one begins with the expected answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from PIL import Image
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from vlprm.cache import cached
from vlprm.errors import ProblemError, UserError
from vlprm.images import check_aspect, content_hash, open_image
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.inputs import InputBuilder
from vlprm.model.packing import Segment
from vlprm.published.protocol import Protocol
from vlprm.schema import Problem, Step
from vlprm.steps import separator_after

ROUNDED_PIXELS = (4 * 28 * 28, 16384 * 28 * 28)  # the limits of qwen_vl_utils


class PublishedInputs(InputBuilder):
    """Makes the inputs of a published reward model. UserError if its tokenizer lacks what the protocol needs."""

    def __init__(
        self, processor: Any, checkpoint_config: CheckpointConfig, config: Any, protocol: Protocol, prompt: str
    ) -> None:
        self.protocol, self.prompt_text, self.most_images = protocol, prompt, protocol.images[1]
        for name, value in protocol.tiles.items():
            setattr(processor.image_processor, name, value)
        super().__init__(processor, checkpoint_config, config)
        image = processor.image_token
        self._lead = protocol.lead.format(prompt=prompt)
        self._image = protocol.image.format(image=image)
        self._controls = (*self.tokenizer.get_added_vocab(), image)
        self._check_places()

    @property
    def asks(self) -> bool:
        """No: a step is scored at the end of its own segment."""
        return False

    def served_alike(self, steps: Sequence[Step]) -> bool:
        """Yes: control tokens separate the steps, and no readable step has one."""
        return True

    def prompt(self, problem: Problem) -> Segment:
        """The segment up to the images. ProblemError if the question spells out a mark, or for a number of images that
        the protocol does not show."""
        images = problem.images
        self._check_problem(problem)
        return cached(self._rendered, ("", images), lambda: self._opening(images))

    def step(self, problem: Problem, step: Step, after: Step | None, closes: bool = False) -> Segment:
        """The segment of a step, scored at its last token."""
        parts = {"step": step.text, "body": self._body(step)}
        if after is None:
            text = self.protocol.first.format(prompt=self.prompt_text, question=problem.question, **parts)
            head = self.prompt(problem).ids
            ids = self._after(self.tokenizer.convert_ids_to_tokens(head[-1]), self._rest(len(problem.images)) + text)
        else:
            rest = after.text[len(self._body(after)) :] + separator_after(after)
            ids = self._after(self._scored_end, self.protocol.later.format(rest=rest, **parts))
        return Segment(ids, (False,) * len(ids), (), len(ids), len(ids) - 1)

    def readable_step(self, problem: Problem, step: Step, after: Step | None, tokens: int) -> Segment | None:
        """See `InputBuilder.readable_step`. A step that spells out a mark, or shows a crop, cannot be read either: the
        public reader would take the mark for a step's end, or see no crop."""
        if step.ends_turn or self._mark_in(step.text):
            return None
        return super().readable_step(problem, step, after, tokens)

    def _verdict_ids(self) -> tuple[int, ...]:
        if self.protocol.verdicts is None:
            return ()
        found = self.tokenizer.convert_tokens_to_ids(list(self.config.verdicts))
        for verdict, token in zip(self.config.verdicts, found, strict=True):
            if token in (None, self.tokenizer.unk_token_id):
                raise UserError(
                    f"the tokenizer has no token {verdict!r}, so this is another model; correct the protocol"
                )
        return tuple(found)

    # --- text

    def _mark_in(self, text: str) -> str | None:
        found = self.text.control_token(text) or next((mark for mark in self.protocol.marks if mark in text), None)
        mark = self.protocol.mark
        return found or (mark if mark and self.tokenizer.convert_tokens_to_ids(mark) in self._ids(text) else None)

    def _body(self, step: Step) -> str:
        """The step's text up to its mark."""
        end = step.text.find(self.protocol.before) if self.protocol.before else -1
        return (step.text[:end] if end > 0 else step.text).rstrip()

    def _check_problem(self, problem: Problem) -> None:
        self.check_question(problem.question)
        if mark := self._mark_in(problem.question):
            raise ProblemError("step_mark", f"the question {problem.question[:60]!r} has the mark {mark}; remove it")
        least, most = self.protocol.images
        if not least <= len(problem.images) <= most:
            takes = f"{least} image{'s' * (least != 1)}" if least == most else f"{least} to {most} images"
            raise ProblemError(
                "image_count", f"this reward model reads {takes}, not {len(problem.images)}; choose others"
            )

    def _rest(self, images: int) -> str:
        """The text after the last control token of the prompt."""
        return self._cut(self._lead + self._image * images)[1]

    def _cut(self, text: str) -> tuple[str, str]:
        end = max(text.rfind(token) + len(token) for token in self._controls if token in text)
        return text[:end], text[end:]

    @property
    def _scored_end(self) -> str:
        """What a segment ends with after its step."""
        return self.protocol.first.rpartition("}")[2]

    def _after(self, before: str, text: str) -> tuple[int, ...]:
        """The ids of a text after another, with control tokens read as such."""
        head, both = self._ids(before), self._ids(before + text)
        assert both[: len(head)] == head, "the tokenizer merges across the places of steps"
        return both[len(head) :]

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _check_places(self) -> None:
        """UserError if the tokenizer merges a scored place with the answer after it, so that it would shift."""
        end, follows = self._scored_end, self.protocol.later.partition("{")[0]
        if self._ids(end + follows)[: len(self._ids(end))] != self._ids(end):
            raise UserError(
                f"the tokenizer merges {end!r} with {follows!r}, so this is another model than the protocol's"
            )

    # --- images

    def _opening(self, images: Sequence[bytes]) -> Segment:
        text = self._cut(self._lead + self._image * len(images))[0]
        shown = self._process(text, [self.opened(data) for data in images])
        opening = tuple(self.tokenizer("")["input_ids"])  # some tokenizers open every text with a token
        return replace(shown, ids=opening + shown.ids, image_mask=(False,) * len(opening) + shown.image_mask)

    def opened(self, data: bytes) -> Image.Image:
        """An image as the processor gets it. UserError if it cannot be shown."""
        name = f"image {content_hash(data)}"
        image = open_image(data, name)
        check_aspect(image.size, name)
        if not self.protocol.rounded:
            return image
        side = self.processor.image_processor.patch_size * self.processor.image_processor.merge_size
        height, width = smart_resize(image.height, image.width, side, *ROUNDED_PIXELS)
        return image.resize((width, height))
