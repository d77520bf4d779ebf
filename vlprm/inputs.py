"""Problem and steps -> token ids, images, positions, step ends. The only place that makes model inputs.

A sequence is a chain of *segments*: the prompt, then one a step. A segment's ids depend on the text of that segment
alone, so that paths with a common prefix have common ids, and a new step never changes what came before. The chat
template renders the prompt and the turn that shows a zoom's crop; both are rendered once and then concatenated.

Shapes: B rows, S steps of a row (padded), T tokens, P patches of an image, I images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vlprm.cache import ByteCache
from vlprm.images import content_hash, crop, open_image
from vlprm.problems import ProblemError
from vlprm.profile import Profile
from vlprm.prompts import user_text
from vlprm.schema import Problem, Region, Step
from vlprm.steps import SEPARATOR

IGNORE = -100
CACHE_BYTES = 1 << 30  # of rendered prompts and crops: the pixel values of one large image are 100 MB


@dataclass(frozen=True)
class ImageInput:
    """One processed image: patches (P, D), its grid (t, h, w) in patches."""

    pixel_values: Tensor
    grid: tuple[int, int, int]


@dataclass(frozen=True)
class Segment:
    """Ids that belong together. `written` counts the leading ids that the policy itself writes (a loss goes there);
    `end` is the index of the id at which the step is scored."""

    ids: tuple[int, ...]
    image_mask: tuple[bool, ...]
    images: tuple[ImageInput, ...] = ()
    written: int = 0
    end: int = -1


@dataclass(frozen=True)
class Row:
    """One sequence: ids and mask of T tokens, positions (3, T), images in order, and the index of each step's end."""

    ids: tuple[int, ...]
    image_mask: tuple[bool, ...]
    written_mask: tuple[bool, ...]
    positions: Tensor
    images: tuple[ImageInput, ...]
    step_ends: tuple[int, ...]


class InputBuilder:
    """Makes rows for one checkpoint: its processor, its profile, and a cache of what was rendered before."""

    def __init__(self, processor: Any, profile: Profile) -> None:
        self.processor = processor
        self.profile = profile
        self.tokenizer = processor.tokenizer
        self.image_token_id: int = processor.image_token_id
        self.merge: int = processor.image_processor.merge_size
        self.patch: int = processor.image_processor.patch_size
        self.end_of_turn: int = self.tokenizer.eos_token_id
        self.pad_id: int = self.tokenizer.pad_token_id
        self.banned_ids = _placeholder_ids(processor)
        self._control = tuple(self.tokenizer.get_added_vocab())
        self._encode = lru_cache(1 << 16)(self._tokenize)
        self._separator = self._encode(SEPARATOR)
        self._observation_text = self._render_observation()
        self._rendered: ByteCache[tuple[str | Region, tuple[bytes, ...]], Segment] = ByteCache(
            CACHE_BYTES, _segment_bytes
        )

    # --- segments

    def prompt(self, problem: Problem) -> Segment:
        """The rendered prompt with its images; cached by what it shows and asks."""
        question, images = problem.question, problem.images
        return self._rendered.get((question, images), lambda: self._make_prompt(question, images))

    def step(self, problem: Problem, step: Step, first: bool, separator: str = SEPARATOR) -> Segment:
        """One step. A zoom step that was executed goes on with the turn that shows its crop, and is scored after it.

        `first` says that nothing was written before in this turn: the solution's first step, or one after a crop.
        """
        if first:
            lead: tuple[int, ...] = ()
        else:
            lead = self._separator if separator == SEPARATOR else self._encode(separator)
        ids = lead + self._encode(step.text)
        text = Segment(ids, (False,) * len(ids), (), len(ids), len(ids) - 1)
        if step.region is None:
            return text
        shown = self._crop(problem.images[0], step.region)
        joined = text.ids + shown.ids
        # The policy writes the end of its turn, which opens the observation.
        return Segment(joined, text.image_mask + shown.image_mask, shown.images, len(text.ids) + 1, len(joined) - 1)

    def row(self, problem: Problem, steps: Sequence[Step], closed: bool = False, separator: str = SEPARATOR) -> Row:
        """The sequence of a problem and steps; `closed` adds the end of the turn, as a finished solution has it."""
        segments = [self.prompt(problem)]
        first = True
        for step in steps:
            segments.append(self.step(problem, step, first, separator))
            first = step.region is not None
        if closed:
            segments.append(Segment((self.end_of_turn,), (False,), (), 1, 0))
        return self._chain(segments, len(steps))

    def seen_size(self, problem: Problem) -> tuple[int, int]:
        """(width, height) in pixels of the first image as the vision tower sees it, from its patch grid."""
        _, height, width = self.prompt(problem).images[0].grid
        return width * self.patch, height * self.patch

    def _chain(self, segments: list[Segment], n_steps: int) -> Row:
        offsets, total = [], 0
        for segment in segments:
            offsets.append(total)
            total += len(segment.ids)
        image_mask = tuple(m for s in segments for m in s.image_mask)
        images = tuple(i for s in segments for i in s.images)
        return Row(
            ids=tuple(i for s in segments for i in s.ids),
            image_mask=image_mask,
            written_mask=tuple(k < s.written for s in segments for k in range(len(s.ids))),
            positions=mrope_positions(image_mask, [i.grid for i in images], self.merge),
            images=images,
            step_ends=tuple(offsets[1 + k] + segments[1 + k].end for k in range(n_steps)),
        )

    def control_token(self, text: str) -> str | None:
        """A control token that the text spells out."""
        return next((token for token in self._control if token in text), None)

    def check_question(self, question: str) -> None:
        """ProblemError where a question spells out a control token, which a rendered prompt would take for one."""
        if token := self.control_token(question):
            raise ProblemError(
                "control_token", f"the question {question[:60]!r} has the control token {token}; remove it"
            )

    # --- rendering

    def _tokenize(self, text: str) -> tuple[int, ...]:
        # Spelt-out control tokens stay text: a solution must not be able to close its turn or to claim an image.
        return tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _make_prompt(self, question: str, images: tuple[bytes, ...]) -> Segment:
        self.check_question(question)
        problem = Problem("", "", question, images, None, "word")
        text = self.processor.apply_chat_template(
            [_user_turn(user_text(self.profile.prompt_template, problem), len(images))],
            add_generation_prompt=True,
            tokenize=False,
        )
        return self._process(text, [open_image(data, f"image {content_hash(data)}") for data in images])

    def _crop(self, image: bytes, region: Region) -> Segment:
        return self._rendered.get(
            (region, (image,)), lambda: self._process(self._observation_text, [crop(open_image(image), region)])
        )

    def _render_observation(self) -> str:
        """What the chat template puts between an assistant's turn and its next, with one image in the user's turn."""
        mark = "\u241e"
        turns = [_user_turn("q", 0), {"role": "assistant", "content": mark}, _user_turn("", 1)]
        text = self.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        assert text.count(mark) == 1, "the chat template rewrites assistant turns"
        return str(text.split(mark)[1])

    def _process(self, text: str, images: list[Image.Image]) -> Segment:
        size = {"shortest_edge": self.profile.min_pixels, "longest_edge": self.profile.max_pixels}
        batch = self.processor(text=[text], images=images or None, images_kwargs={"size": size}, return_tensors="pt")
        ids = tuple(batch["input_ids"][0].tolist())
        if not images:
            return Segment(ids, (False,) * len(ids))
        grids = [tuple(grid) for grid in batch["image_grid_thw"].tolist()]
        patches = batch["pixel_values"].split([t * h * w for t, h, w in grids])
        inputs = tuple(ImageInput(p, g) for p, g in zip(patches, grids, strict=True))
        return Segment(ids, tuple(i == self.image_token_id for i in ids), inputs)


def _segment_bytes(key: tuple[str | Region, tuple[bytes, ...]], segment: Segment) -> int:
    """Image files and pixels; some 50 bytes for an id and its place in the mask."""
    pixels = sum(image.pixel_values.nbytes for image in segment.images)
    return sum(map(len, key[1])) + pixels + 50 * len(segment.ids)


def mrope_positions(image_mask: Sequence[bool], grids: Iterable[tuple[int, int, int]], merge: int) -> Tensor:
    """(3, T) temporal, height and width positions of Qwen's multimodal rotary embedding.

    Text advances all three by one a token. An image keeps the temporal position and counts rows and columns of its
    merged patches; what follows starts after the larger of its two sides (Qwen3-VL's get_rope_index for images).
    """
    parts, position, token = [], 0, 0
    remaining = iter(grids)
    while token < len(image_mask):
        if image_mask[token]:
            _, height, width = (n // merge if k else n for k, n in enumerate(next(remaining)))
            cell = torch.arange(height * width)
            parts.append(torch.stack([torch.zeros_like(cell), cell // width, cell % width]) + position)
            token, position = token + height * width, position + max(height, width)
        else:
            run = token
            while run < len(image_mask) and not image_mask[run]:
                run += 1
            parts.append((torch.arange(run - token) + position).expand(3, -1))
            position, token = position + run - token, run
    return torch.cat(parts, dim=1)


def collate(rows: Sequence[Row], pad_id: int, side: str = "right") -> dict[str, Tensor]:
    """Rows as one padded batch for a backbone: ids, mask and token types (B, T), positions (3, B, T), and the images of
    all rows in order. Never truncates."""
    length = max(len(row.ids) for row in rows)
    shape = (len(rows), length)
    ids_BT = torch.full(shape, pad_id)
    mask_BT, types_BT = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    positions_3BT = torch.zeros((3, *shape), dtype=torch.long)
    for b, row in enumerate(rows):
        size = len(row.ids)
        start = 0 if side == "right" else length - size
        ids_BT[b, start : start + size] = torch.tensor(row.ids)
        mask_BT[b, start : start + size] = 1
        types_BT[b, start : start + size] = torch.tensor(row.image_mask, dtype=torch.long)
        positions_3BT[:, b, start : start + size] = row.positions
    batch = {
        "input_ids": ids_BT, "attention_mask": mask_BT, "mm_token_type_ids": types_BT, "position_ids": positions_3BT,
    }  # fmt: skip
    images = [image for row in rows for image in row.images]
    if images:
        batch["pixel_values"] = torch.cat([image.pixel_values for image in images])
        batch["image_grid_thw"] = torch.tensor([image.grid for image in images])
    return batch


def collate_steps(rows: Sequence[Row], pad_id: int) -> dict[str, Tensor]:
    """A batch for a reward model: `collate`'s, with step ends (B, S; -1 pads) and, for each id, the step that the
    policy wrote it in (B, T; -1 for what it was shown)."""
    batch = collate(rows, pad_id)
    ends_BS = torch.full((len(rows), max(len(row.step_ends) for row in rows)), -1)
    written_BT = torch.full(batch["input_ids"].shape, -1)
    for b, row in enumerate(rows):
        ends_BS[b, : len(row.step_ends)] = torch.tensor(row.step_ends, dtype=torch.long)
        start = 0
        for step, end in enumerate(row.step_ends):
            written = torch.tensor(row.written_mask[start : end + 1])
            written_BT[b, start : end + 1][written] = step
            start = end + 1
    return {**batch, "step_ends": ends_BS, "written_in": written_BT}


def _user_turn(text: str, n_images: int) -> dict[str, Any]:
    content: list[dict[str, str]] = [{"type": "image"}] * n_images
    return {"role": "user", "content": [*content, {"type": "text", "text": text}] if text else content}


def _placeholder_ids(processor: Any) -> tuple[int, ...]:
    """Ids of image and video placeholders. A policy that samples one breaks the next forward pass: ban them."""
    names = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>")
    known = processor.tokenizer.get_vocab()
    return tuple(sorted({known[name] for name in names if name in known} | {processor.image_token_id}))
