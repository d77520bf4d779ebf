"""Make model inputs (token ids, images, positions, step ends) from a problem and steps. The only module that does.

A sequence is a chain of *segments*: the prompt, then one per step (`vlprm.model.tokenize`). A segment's ids depend on
its own text and on what precedes it, never on what follows. So paths with a common prefix share its ids, and a new step
does not change earlier ids.

The chat template renders the prompt, and the turn that shows a crop, once each; the ids are then concatenated.

Shapes: T tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any

import torch
from cachetools import LRUCache
from PIL import Image
from torch import Tensor

from vlprm.cache import cached
from vlprm.errors import ProblemError, UserError
from vlprm.images import check_aspect, content_hash, image_size, open_image, source_of
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.families import family_of
from vlprm.model.image_limits import set_limits
from vlprm.model.mrope import mrope_positions
from vlprm.model.packing import Node, PackedRow, Segment, collate, join, joined_images, lay_out, step_places
from vlprm.model.tokenize import TurnText
from vlprm.prompts import user_text, verdict_text
from vlprm.schema import HALF_CHARACTER, Problem, Region, Step

CACHE_BYTES = 1 << 30  # limit of the cache; the pixel values of one large image are 100 MB
STREAMED_BYTES, STREAMED_TEXTS = 1 << 26, 1 << 12  # limits where each problem is read once

Size = tuple[int, int]  # (width, height) of an image, in place of the image where only tokens are counted


class InputBuilder:
    """Makes input rows for one checkpoint. Caches rendered prompts and crops, and sets the checkpoint's image limits in
    the processor."""

    def __init__(self, processor: Any, checkpoint_config: CheckpointConfig, config: Any) -> None:
        self.processor = processor
        self.config = checkpoint_config
        self.family = checkpoint_config.family or family_of(config)
        text = config.get_text_config()
        self.context: int = text.max_position_embeddings  # maximum number of tokens per row
        self.width: int = text.hidden_size
        self.pixel_limits = set_limits(processor, self.family, checkpoint_config)
        self.tokenizer = processor.tokenizer
        # From the config: Gemma's processor has the id that a template writes, not the one that the model fills.
        self.image_token_id: int = config.image_token_id
        self._template = {
            **self.family.template,
            **({"tools": tools} if (tools := checkpoint_config.zoom.tools) else {}),
        }
        self.text = TurnText(self.tokenizer)
        self._observation_text = self._render_turn(self._observation("", 1))
        self.end_of_turn: int = self._process(self._render_turn(_user_turn("q", 0)), []).ids[0]
        self.pad_id: int = self.tokenizer.pad_token_id
        self.banned_ids = _placeholder_ids(self.tokenizer, self.image_token_id, self.end_of_turn)
        self.verdict_ids = self._verdict_ids() if checkpoint_config.head == "verdict" else ()
        self._rendered: LRUCache[tuple[str | Region, tuple[bytes, ...]], Segment] = LRUCache(
            CACHE_BYTES, getsizeof=_segment_bytes
        )
        self._counts = False

    def streamed(self) -> InputBuilder:
        """A copy for problems that are read once each: its caches are small."""
        made = copy.copy(self)
        made.text = TurnText(self.tokenizer, STREAMED_TEXTS)
        made._rendered = LRUCache(STREAMED_BYTES, getsizeof=_segment_bytes)
        return made

    def counting(self) -> InputBuilder:
        """A streamed copy whose segments have the same ids and no pixels, from the sizes of images. Only the processors
        of Qwen-VL tell the tokens of a size; those of other families still process each image."""
        made = self.streamed()
        made._counts = self.family.pixel_limits
        made._tokens_of = lru_cache(STREAMED_TEXTS)(made._tokens_of)  # type: ignore[method-assign]
        return made

    most_images: int | None = None  # that a problem may have; None for any number

    @property
    def asks(self) -> bool:
        """Whether a step is scored at the end of a question about it, on a branch of its own, not at its own end."""
        return self.config.head == "verdict"

    def served_alike(self, steps: Sequence[Step]) -> bool:
        """Whether a server tokenizes the text of the steps as this process does."""
        return self.text.served_alike(steps)

    # --- segments

    def prompt(self, problem: Problem) -> Segment:
        """The rendered prompt with its images, cached by question and images. ProblemError if an image is too narrow or
        the question spells out a control token."""
        question, images = problem.question, problem.images
        return cached(self._rendered, (question, images), lambda: self._make_prompt(question, images))

    def step(self, problem: Problem, step: Step, after: Step | None, closes: bool = False) -> Segment:
        """The segment of a step `after` another (None: the first step). An executed zoom continues with the turn that
        shows its crop, a refused one with the turn that says why; both are scored at the end of that turn. `closes`:
        the step ends the policy's turn, so no separator is merged into its last token."""
        return self._observed(problem, step, self.text.step_ids(step, after, closes))

    def readable_step(self, problem: Problem, step: Step, after: Step | None, tokens: int) -> Segment | None:
        """The segment of a step after `tokens` tokens; None if the step is empty or exceeds the context length."""
        if not step.text.strip():
            return None
        segment = self.step(problem, step, after)
        asked = len(self.verdict_question().ids) if self.asks else 0
        return segment if tokens + len(segment.ids) + asked <= self.context else None

    def readable(self, problem: Problem, steps: Sequence[Step]) -> Sequence[Step]:
        """The steps before the first that is empty or exceeds the context length."""
        tokens = len(self.prompt(problem).ids)
        for k, step in enumerate(steps):
            segment = self.readable_step(problem, step, steps[k - 1] if k else None, tokens)
            if segment is None:
                return steps[:k]
            tokens += len(segment.ids)
        return steps

    def decode(self, ids: Sequence[int], image_mask: Sequence[bool]) -> str:
        """The text of ids, with one mark for a run of image tokens."""
        runs = groupby(zip(ids, image_mask, strict=True), key=itemgetter(1))
        return "".join("<image>" if shown else self.tokenizer.decode([token for token, _ in of]) for shown, of in runs)

    def _observed(self, problem: Problem, step: Step, ids: tuple[int, ...]) -> Segment:
        """The segment of written ids and of the turn that follows the step, if any."""
        if not step.ends_turn:
            return Segment(ids, (False,) * len(ids), (), len(ids), len(ids) - 1)
        shown = self.observation(problem, step)
        joined = ids + shown.ids
        mask = (False,) * len(ids) + shown.image_mask
        # The policy writes the end of its turn, which opens the observation.
        return Segment(joined, mask, shown.images, len(ids) + 1, len(joined) - 1)

    def observation(self, problem: Problem, step: Step) -> Segment:
        """The turn that follows a step that ends a turn: its crop, or the message that it was told. It opens with the
        end of the policy's turn."""
        return self._told(step.told) if step.region is None else self._crop(problem, step.region)

    def row(self, problem: Problem, steps: Sequence[Step], closed: bool = False) -> PackedRow:
        """The sequence of a problem and steps; `closed` adds the end of the turn, as in a finished solution."""
        nodes = self._nodes(problem, steps, range(-1, len(steps) - 1))
        if closed:
            assert not self.asks
            if steps:
                last = self.step(problem, steps[-1], steps[-2] if len(steps) > 1 else None, closes=True)
                nodes[-1] = replace(nodes[-1], segment=last)
            nodes.append(Node(Segment((self.end_of_turn,), (False,), (), 1, 0), len(steps), writes=len(steps)))
        return lay_out(nodes, self.positions)

    def rows_apart(self, problem: Problem, steps: Sequence[Step]) -> list[PackedRow]:
        """The sequences that score the steps without branches: one for all steps; for a verdict head one per step,
        which ends with the question about it."""
        if not self.asks:
            return [self.row(problem, steps)] if steps else []
        nodes = self._unscored(problem, steps, range(-1, len(steps) - 1))
        asked = [Node(self.verdict_question(), end, scores=0) for end in range(1, len(nodes))]
        return [lay_out([*nodes[: end + 1], asked[end - 1]], self.positions) for end in range(1, len(nodes))]

    def sampled_row(
        self, problem: Problem, steps: Sequence[Step], turns: Sequence[tuple[int, tuple[int, ...]]]
    ) -> PackedRow:
        """The sequence of a problem and steps, with the ids that the policy sampled. `turns` lists the last turns as
        (number of steps, sampled ids); these ids are kept up to the end of the turn's last step, without tokenizing
        again."""
        at = len(steps) - sum(count for count, _ in turns)
        nodes = self._unscored(problem, steps[:at], range(-1, at - 1))
        for count, ids in turns:
            of_turn, sampled = steps[at : at + count], ids[:-1] if ids[-1:] == (self.end_of_turn,) else ids
            written = self.text.to_the_end_of(of_turn, sampled, after=steps[at - 1] if at else None)
            nodes.append(Node(self._observed(problem, of_turn[-1], written), len(nodes) - 1))
            at += count
        return lay_out(nodes, self.positions)

    def asked_row(self, problem: Problem, steps: Sequence[Step], asked: str, begun: tuple[int, ...] = ()) -> PackedRow:
        """The sequence of a problem, its steps, the question `asked` in a user turn (none if it is empty), and the ids
        with which the answer has `begun`."""
        nodes = self._asked_nodes(problem, steps, asked)
        if begun:
            nodes.append(Node(Segment(begun, (False,) * len(begun)), len(nodes) - 1))
        return lay_out(nodes, self.positions)

    def asked_segments(self, problem: Problem, steps: Sequence[Step], asked: str) -> list[Segment]:
        """The segments of `asked_row` after the prompt: one per step, and the question, if there is one."""
        return [node.segment for node in self._asked_nodes(problem, steps, asked)[1:]]

    def begun_row(self, problem: Problem, steps: Sequence[Step]) -> PackedRow:
        """The sequence of a problem and steps, with the separator that begins the next step."""
        nodes = self._unscored(problem, steps, range(-1, len(steps) - 1))
        if lead := self.text.lead(steps[-1] if steps else None):
            nodes.append(Node(Segment(lead, (False,) * len(lead)), len(steps)))
        return lay_out(nodes, self.positions)

    def tree(self, problem: Problem, steps: Sequence[Step], parents: Sequence[int]) -> PackedRow:
        """The sequence of a problem and a tree of steps; see `tree_nodes`."""
        return lay_out(self.tree_nodes(problem, steps, parents), self.positions)

    def tree_nodes(
        self,
        problem: Problem,
        steps: Sequence[Step],
        parents: Sequence[int],
        asked: str = "",
        answers: Sequence[tuple[int, str]] = (),
    ) -> list[Node]:
        """The nodes of a problem and a tree of steps; `parents` gives each step's parent (-1: the prompt), which
        precedes it. `answers` adds (step, text) pairs to train the LM head on: each is a branch after its step, behind
        the question `asked` if there is one. UserError if the backbone cannot read branches."""
        if self.family.cannot_pack and (len(set(parents)) < len(parents) or answers):
            raise UserError(f"this backbone cannot read a tree in one sequence: {self.family.cannot_pack}; use paths")
        nodes = self._nodes(problem, steps, parents)
        for step, text in answers:
            ids = (*self.text.encode(text), self.end_of_turn)
            if asked:
                nodes.append(Node(self._question(asked), step + 1))
            parent = len(nodes) - 1 if asked else step + 1
            nodes.append(Node(Segment(ids, (False,) * len(ids), (), len(ids)), parent, taught=True))
        return nodes

    def _nodes(self, problem: Problem, steps: Sequence[Step], parents: Sequence[int]) -> list[Node]:
        nodes = self._unscored(problem, steps, parents)
        if not self.asks:
            return [replace(node, scores=node.writes) for node in nodes]
        # The question after each step is a branch, so that later steps do not attend to it.
        return [*nodes, *(Node(self.verdict_question(), k + 1, scores=k) for k in range(len(steps)))]

    def verdict_question(self) -> Segment:
        """The user turn that asks a verdict head about the last step."""
        return self._question(verdict_text(self.config.verdict_template, self.config.verdicts))

    def _unscored(self, problem: Problem, steps: Sequence[Step], parents: Sequence[int]) -> list[Node]:
        nodes = [Node(self.prompt(problem), -1)]
        for k, (step, parent) in enumerate(zip(steps, parents, strict=True)):
            after = steps[parent] if parent >= 0 else None
            nodes.append(Node(self.step(problem, step, after), parent + 1, k))
        return nodes

    def _asked_nodes(self, problem: Problem, steps: Sequence[Step], asked: str) -> list[Node]:
        nodes = self._unscored(problem, steps, range(-1, len(steps) - 1))
        return [*nodes, Node(self._question(asked), len(nodes) - 1)] if asked else nodes

    def batch(self, rows: Sequence[PackedRow], side: str = "right") -> dict[str, Tensor]:
        """The padded batch of rows, by the names of the backbone's arguments."""
        batch = collate(rows, self.pad_id, side)
        types_BT = batch.pop("token_types")
        if self.family.token_types:
            batch[self.family.token_types] = types_BT
        return {**batch, **joined_images([image for row in rows for image in row.images], self.family.tiles)}

    def step_batch(self, rows: Sequence[PackedRow]) -> dict[str, Tensor]:
        """The padded batch of rows with the places of the steps, for a reward model."""
        return {**self.batch(rows), **step_places(rows)}

    def with_an_image(self, rows: Sequence[PackedRow]) -> list[PackedRow]:
        """The rows; if none has an image, the last one gets an image that no step attends to. In sharded training, a
        rank that skips the vision tower blocks the others."""
        if any(row.images for row in rows):
            return list(rows)
        blank = lay_out([Node(self._process(self._observation_text, [Image.new("RGB", (32, 32))]), -1)], self.positions)
        last = join([rows[-1], blank])
        if self.family.cannot_pack:  # its causal mask hides the image from earlier steps
            last = replace(last, until=(len(last.ids),) * len(last.ids))
        return [*rows[:-1], last]

    def positions(self, segment: Segment, start: int) -> tuple[Tensor, int]:
        """Positions of a segment's ids from `start` on, and the next segment's start; see
        `vlprm.model.packing.Positions`."""
        if self.family.positions == "linear":
            return torch.arange(start, start + len(segment.ids))[None], start + len(segment.ids)
        grids = [tuple(grid) for image in segment.images for grid in image["image_grid_thw"].tolist()]
        return mrope_positions(segment.image_mask, grids, self.processor.image_processor.merge_size, start)

    def seen_size(self, problem: Problem, shown: int | Region = 0) -> tuple[int, int]:
        """(width, height) in pixels at which the vision tower sees an image of the problem (by index) or a region's
        crop, from its patch grid; the image's own size if the processor reports no grid."""
        if isinstance(shown, Region):
            image, row, images = source_of(problem.images, shown), 0, self._crop(problem, shown).images
        else:
            image, row, images = problem.images[shown], shown, self.prompt(problem).images
        if "image_grid_thw" not in images[0]:
            opened = open_image(image)
            return self.config.zoom.crop(opened, shown).size if isinstance(shown, Region) else opened.size
        _, height, width = images[0]["image_grid_thw"][row].tolist()
        patch = self.processor.image_processor.patch_size
        return width * patch, height * patch

    def crop_tokens(self, problem: Problem, region: Region) -> int:
        """Number of image tokens of a region's crop."""
        return sum(self._crop(problem, region).image_mask)

    def check_question(self, question: str) -> None:
        """ProblemError if a question spells out a control token, which the model would read as one, or has half of a
        surrogate pair."""
        if token := self.text.control_token(question):
            raise ProblemError(
                "control_token", f"the question {question[:60]!r} contains the control token {token}; remove it"
            )
        if HALF_CHARACTER.search(question):
            raise ProblemError("half_character", f"the question {question[:60]!r} has half a character; remove it")

    # --- rendering

    def _make_prompt(self, question: str, images: tuple[bytes, ...]) -> Segment:
        self.check_question(question)
        problem = Problem("", "", question, images, None, "word")
        text = self.processor.apply_chat_template(
            [_user_turn(user_text(self.config.prompt_template, problem), len(images))],
            add_generation_prompt=True,
            tokenize=False,
            **self._template,
        )
        return self._process(text, [self._shown(data) for data in images])

    def _crop(self, problem: Problem, region: Region) -> Segment:
        image, policy = source_of(problem.images, region), self.config.zoom

        def shown() -> Image.Image | Size:
            if self._counts:
                return policy.crop_size(image_size(image), region)
            return policy.crop(open_image(image), region)

        return cached(self._rendered, (region, (image,)), lambda: self._process(self._observation_text, [shown()]))

    def _told(self, message: str) -> Segment:
        turn = self._render_turn(self._observation(message, 0))
        return cached(self._rendered, (f"told: {message}", ()), lambda: self._process(turn, []))

    def _observation(self, text: str, n_images: int) -> dict[str, Any]:
        """The turn that shows a crop to the policy, or tells it why a zoom was refused."""
        return {**_user_turn(text, n_images), "role": self.config.zoom.observer}

    def _render_turn(self, turn: dict[str, Any]) -> str:
        """The text that the chat template puts between two assistant turns, including the turn between them."""
        mark = "\u241e"
        # Some templates drop content that is a plain string.
        written = {"role": "assistant", "content": [{"type": "text", "text": mark}]}
        text = self.processor.apply_chat_template(
            [_user_turn("q", 0), written, turn], add_generation_prompt=True, tokenize=False, **self._template
        )
        assert text.count(mark) == 1, "the chat template rewrites assistant turns"
        return str(text.split(mark)[1])

    def _question(self, text: str) -> Segment:
        """A user turn that asks a question; its end predicts the answer's first token."""
        turn = cached(
            self._rendered,
            (f"after a turn: {text}", ()),
            lambda: self._process(self._render_turn(_user_turn(text, 0)), []),
        )
        return Segment(turn.ids, turn.image_mask, end=len(turn.ids) - 1)

    def _verdict_ids(self) -> tuple[int, ...]:
        ids = [self.text.encode(verdict) for verdict in self.config.verdicts]
        for verdict, pieces in zip(self.config.verdicts, ids, strict=True):
            if len(pieces) != 1:
                raise UserError(
                    f"the verdict {verdict!r} is {len(pieces)} tokens in this tokenizer; name two single tokens as"
                    " verdicts in vlprm.json"
                )
        return tuple(pieces[0] for pieces in ids)

    def _shown(self, data: bytes) -> Image.Image | Size:
        """An image of a problem. UserError if a model cannot see it."""
        name = f"image {content_hash(data)}"
        shown = image_size(data, name) if self._counts else open_image(data, name)
        check_aspect(shown if isinstance(shown, tuple) else shown.size, name)
        return shown

    def _counted(self, text: str, sizes: Sequence[Size]) -> Segment:
        """The segment that `_process` makes of images of these sizes, without pixels."""
        left = map(self._tokens_of, sizes)
        ids: list[int] = []
        for token in self.tokenizer(text, add_special_tokens=False)["input_ids"]:
            ids += [token] * (next(left) if token == self.image_token_id else 1)
        return Segment(tuple(ids), tuple(i == self.image_token_id for i in ids))

    def _tokens_of(self, size: Size) -> int:
        width, height = size
        return int(self.processor._get_num_multimodal_tokens(image_sizes=[(height, width)]).num_image_tokens[0])

    def _process(self, text: str, images: Sequence[Image.Image | Size]) -> Segment:
        if images and self._counts:
            return self._counted(text, [size for size in images if isinstance(size, tuple)])
        # The template already contains the opening token, if the family has one.
        kwargs: dict[str, Any] = {"text_kwargs": {"add_special_tokens": False}}
        if self.family.tiles != "joined":  # joined images with different numbers of tiles are not one tensor
            kwargs["return_tensors"] = "pt"
        batch = self.processor(text=[text], images=[[*images]] if images else None, **kwargs)
        ids = tuple(map(int, batch["input_ids"][0]))
        if not images:
            return Segment(ids, (False,) * len(ids))
        shown = {name: batch[name] for name in self.processor.image_processor.model_input_names if name in batch}
        if self.family.tiles == "joined":
            shown = {"pixel_values": torch.cat([torch.as_tensor(tiles) for tiles in shown["pixel_values"]])[None]}
        return Segment(ids, tuple(i == self.image_token_id for i in ids), (shown,))


def _segment_bytes(segment: Segment) -> int:
    """Bytes of the pixels, and about 50 per token for its id and mask."""
    return sum(tensor.nbytes for image in segment.images for tensor in image.values()) + 50 * len(segment.ids)


def _user_turn(text: str, n_images: int) -> dict[str, Any]:
    content: list[dict[str, str]] = [{"type": "image"}] * n_images
    return {"role": "user", "content": [*content, {"type": "text", "text": text}] if text else content}


def _placeholder_ids(tokenizer: Any, image_token_id: int, end_of_turn: int) -> tuple[int, ...]:
    """Ids that a policy must not sample because they break the next forward pass (image placeholders): all special ids
    except those that end a text or a turn."""
    names = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>")
    known = tokenizer.get_vocab()
    special = {known[name] for name in names if name in known} | set(tokenizer.all_special_ids) | {image_token_id}
    return tuple(sorted(special - {end_of_turn, tokenizer.eos_token_id, tokenizer.pad_token_id}))
