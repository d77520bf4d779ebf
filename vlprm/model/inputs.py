"""Problem and steps -> token ids, images, positions, step ends. The only place that makes model inputs.

A sequence is a chain of *segments*: the prompt, then one a step (`vlprm.model.tokenize`). A segment's ids depend on
what stands before it and on its own text, never on what follows, so that paths with a common prefix have common ids,
and a new step never changes what came before.

The chat template renders the prompt and the turn that shows a zoom's crop, once each; then ids are concatenated.

Shapes: T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from cachetools import LRUCache
from PIL import Image
from torch import Tensor

from vlprm.cache import cached
from vlprm.errors import ProblemError, UserError
from vlprm.images import check_aspect, content_hash, open_image, source_of
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.families import family_of
from vlprm.model.image_limits import set_limits
from vlprm.model.mrope import mrope_positions
from vlprm.model.packing import Node, PackedRow, Segment, collate, join, joined_images, lay_out, step_places
from vlprm.model.tokenize import TurnText
from vlprm.prompts import user_text, verdict_text
from vlprm.schema import Problem, Region, Step

CACHE_BYTES = 1 << 30  # of rendered prompts and crops: the pixel values of one large image are 100 MB


class InputBuilder:
    """Makes rows for one checkpoint: its processor, its profile, and a cache of what was rendered before. Limits of
    images that the profile declares are set in the processor."""

    def __init__(self, processor: Any, checkpoint_config: CheckpointConfig, config: Any) -> None:
        self.processor = processor
        self.config = checkpoint_config
        self.family = checkpoint_config.family or family_of(config)
        self.context: int = config.get_text_config().max_position_embeddings  # tokens of a row
        self.pixel_limits = set_limits(processor, self.family, checkpoint_config)
        self.tokenizer = processor.tokenizer
        # The config's: Gemma's processor has the id of what a template writes, not of what the model fills.
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

    # --- segments

    def prompt(self, problem: Problem) -> Segment:
        """The rendered prompt with its images; cached by what it shows and asks. ProblemError where it cannot be made:
        an image is too narrow, or the question spells out a control token."""
        question, images = problem.question, problem.images
        return cached(self._rendered, (question, images), lambda: self._make_prompt(question, images))

    def step(self, problem: Problem, step: Step, after: Step | None, closes: bool = False) -> Segment:
        """One step `after` another (None: the solution's first). A zoom step that was executed goes on with the turn
        that shows its crop, and is scored after it; so does one that was refused, with what the policy was told. Of one
        that `closes` the policy's turn, nothing is joined to what would follow."""
        return self._observed(problem, step, self.text.step_ids(step, after, closes))

    def readable_step(self, problem: Problem, step: Step, after: Step | None, tokens: int) -> Segment | None:
        """A step that is to be scored after so many tokens. None where it cannot be read: it is empty, or it does not
        fit into the model's context."""
        if not step.text.strip():
            return None
        segment = self.step(problem, step, after)
        asked = len(self.verdict_question().ids) if self.config.head == "verdict" else 0
        return segment if tokens + len(segment.ids) + asked <= self.context else None

    def readable(self, problem: Problem, steps: Sequence[Step]) -> Sequence[Step]:
        """The steps before the first that cannot be read; those after it cannot be, either."""
        tokens = len(self.prompt(problem).ids)
        for k, step in enumerate(steps):
            segment = self.readable_step(problem, step, steps[k - 1] if k else None, tokens)
            if segment is None:
                return steps[:k]
            tokens += len(segment.ids)
        return steps

    def _observed(self, problem: Problem, step: Step, ids: tuple[int, ...]) -> Segment:
        """What was written as these ids, and the turn that the step ends with, if it has one."""
        if not step.ends_turn:
            return Segment(ids, (False,) * len(ids), (), len(ids), len(ids) - 1)
        shown = self._told(step.told) if step.region is None else self._crop(problem, step.region)
        joined = ids + shown.ids
        mask = (False,) * len(ids) + shown.image_mask
        # The policy writes the end of its turn, which opens the observation.
        return Segment(joined, mask, shown.images, len(ids) + 1, len(joined) - 1)

    def row(self, problem: Problem, steps: Sequence[Step], closed: bool = False) -> PackedRow:
        """The sequence of a problem and steps; `closed` adds the end of the turn, as a finished solution has it."""
        nodes = self._nodes(problem, steps, range(-1, len(steps) - 1))
        if closed:
            assert self.config.head != "verdict"
            if steps:
                last = self.step(problem, steps[-1], steps[-2] if len(steps) > 1 else None, closes=True)
                nodes[-1] = replace(nodes[-1], segment=last)
            nodes.append(Node(Segment((self.end_of_turn,), (False,), (), 1, 0), len(steps), writes=len(steps)))
        return lay_out(nodes, self.positions)

    def rows_apart(self, problem: Problem, steps: Sequence[Step]) -> list[PackedRow]:
        """The sequences in which the steps are scored where none may branch: all in one; for a verdict head one a step,
        which ends with the question about it."""
        if self.config.head != "verdict":
            return [self.row(problem, steps)] if steps else []
        nodes = self._unscored(problem, steps, range(-1, len(steps) - 1))
        asked = [Node(self.verdict_question(), end, scores=0) for end in range(1, len(nodes))]
        return [lay_out([*nodes[: end + 1], asked[end - 1]], self.positions) for end in range(1, len(nodes))]

    def sampled_row(
        self, problem: Problem, steps: Sequence[Step], turns: Sequence[tuple[int, tuple[int, ...]]]
    ) -> PackedRow:
        """The sequence of a problem and steps, the last of which were sampled in turns of so many steps and as those
        ids: each turn has its ids to the end of its last step, and no tokenizer is asked what it would make of them."""
        at = len(steps) - sum(count for count, _ in turns)
        nodes = self._unscored(problem, steps[:at], range(-1, at - 1))
        for count, ids in turns:
            of_turn, sampled = steps[at : at + count], ids[:-1] if ids[-1:] == (self.end_of_turn,) else ids
            written = self.text.to_the_end_of(of_turn, sampled, after=steps[at - 1] if at else None)
            nodes.append(Node(self._observed(problem, of_turn[-1], written), len(nodes) - 1))
            at += count
        return lay_out(nodes, self.positions)

    def asked_row(self, problem: Problem, steps: Sequence[Step], asked: str) -> PackedRow:
        """The sequence of a problem, steps, and a question about them in a user's turn, to be answered. Without a
        question, the answer is to go on where the steps end."""
        nodes = self._unscored(problem, steps, range(-1, len(steps) - 1))
        question = [Node(self._question(asked), len(steps))] if asked else []
        return lay_out([*nodes, *question], self.positions)

    def begun_row(self, problem: Problem, steps: Sequence[Step]) -> PackedRow:
        """The sequence of a problem and steps after which one more has been begun."""
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
        """What is laid out of a problem and a tree of steps, each after its parent step (-1: the prompt), which stands
        before it. After some of them the question `asked`, if any, stands on a branch of its own, with an answer that
        is taught.
        UserError where the family's backbones cannot read branches."""
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
        if self.config.head != "verdict":
            return [replace(node, scores=node.writes) for node in nodes]
        # A branch of its own after each step: what follows the step does not see the question about it.
        return [*nodes, *(Node(self.verdict_question(), k + 1, scores=k) for k in range(len(steps)))]

    def verdict_question(self) -> Segment:
        """What a verdict head is asked after a step."""
        return self._question(verdict_text(self.config.verdict_template, self.config.verdicts))

    def _unscored(self, problem: Problem, steps: Sequence[Step], parents: Sequence[int]) -> list[Node]:
        nodes = [Node(self.prompt(problem), -1)]
        for k, (step, parent) in enumerate(zip(steps, parents, strict=True)):
            after = steps[parent] if parent >= 0 else None
            nodes.append(Node(self.step(problem, step, after), parent + 1, k))
        return nodes

    def batch(self, rows: Sequence[PackedRow], side: str = "right") -> dict[str, Tensor]:
        """The padded batch of rows, by the names of the backbone's arguments."""
        batch = collate(rows, self.pad_id, side)
        types_BT = batch.pop("token_types")
        if self.family.token_types:
            batch[self.family.token_types] = types_BT
        return {**batch, **joined_images([image for row in rows for image in row.images], self.family.tiles)}

    def step_batch(self, rows: Sequence[PackedRow]) -> dict[str, Tensor]:
        """The same for a reward model, which is also told where the steps are."""
        return {**self.batch(rows), **step_places(rows)}

    def with_an_image(self, rows: Sequence[PackedRow]) -> list[PackedRow]:
        """The rows; if none of them has an image, the last goes on with one that no step sees. Where a model is sharded
        over devices, a device whose batch skips the vision tower makes the others wait for ever."""
        if any(row.images for row in rows):
            return list(rows)
        blank = lay_out([Node(self._process(self._observation_text, [Image.new("RGB", (32, 32))]), -1)], self.positions)
        last = join([rows[-1], blank])
        if self.family.cannot_pack:  # what follows a step is not seen by it in any case
            last = replace(last, until=(len(last.ids),) * len(last.ids))
        return [*rows[:-1], last]

    def positions(self, segment: Segment, start: int) -> tuple[Tensor, int]:
        """Positions of a segment's ids from `start` on; see `vlprm.model.packing.Positions`."""
        if self.family.positions == "linear":
            return torch.arange(start, start + len(segment.ids))[None], start + len(segment.ids)
        grids = [tuple(grid) for image in segment.images for grid in image["image_grid_thw"].tolist()]
        return mrope_positions(segment.image_mask, grids, self.processor.image_processor.merge_size, start)

    def seen_size(self, problem: Problem, shown: int | Region = 0) -> tuple[int, int]:
        """(width, height) in pixels of an image of the problem, or of a region's crop, as the vision tower sees it, by
        its patch grid; of the image itself where the processor tells no grid."""
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
        """Tokens of the image that shows a region's crop."""
        return sum(self._crop(problem, region).image_mask)

    def check_question(self, question: str) -> None:
        """ProblemError where a question spells out a control token, which a rendered prompt would take for one."""
        if token := self.text.control_token(question):
            raise ProblemError(
                "control_token", f"the question {question[:60]!r} has the control token {token}; remove it"
            )

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
        return self._process(text, [_shown_image(data) for data in images])

    def _crop(self, problem: Problem, region: Region) -> Segment:
        image, policy = source_of(problem.images, region), self.config.zoom
        return cached(
            self._rendered,
            (region, (image,)),
            lambda: self._process(self._observation_text, [policy.crop(open_image(image), region)]),
        )

    def _told(self, message: str) -> Segment:
        turn = self._render_turn(self._observation(message, 0))
        return cached(self._rendered, (f"told: {message}", ()), lambda: self._process(turn, []))

    def _observation(self, text: str, n_images: int) -> dict[str, Any]:
        """The turn in which a policy is shown a crop, or told why there is none."""
        return {**_user_turn(text, n_images), "role": self.config.zoom.observer}

    def _render_turn(self, turn: dict[str, Any]) -> str:
        """What the chat template puts between an assistant's turn and its next, with this user's turn in between."""
        mark = "\u241e"
        # Some templates drop a content that is a plain string.
        written = {"role": "assistant", "content": [{"type": "text", "text": mark}]}
        text = self.processor.apply_chat_template(
            [_user_turn("q", 0), written, turn], add_generation_prompt=True, tokenize=False, **self._template
        )
        assert text.count(mark) == 1, "the chat template rewrites assistant turns"
        return str(text.split(mark)[1])

    def _question(self, text: str) -> Segment:
        """A user's turn that asks something; its end is where the answer's first token is predicted."""
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
                    f"the verdict {verdict!r} is {len(pieces)} tokens of this tokenizer; name two single tokens as"
                    " verdicts in vlprm.json"
                )
        return tuple(pieces[0] for pieces in ids)

    def _process(self, text: str, images: list[Image.Image]) -> Segment:
        # The template has written the opening token already, where the family has one.
        kwargs: dict[str, Any] = {"text_kwargs": {"add_special_tokens": False}}
        if self.family.tiles != "joined":  # of those, images of different numbers of tiles make no tensor
            kwargs["return_tensors"] = "pt"
        batch = self.processor(text=[text], images=[images] if images else None, **kwargs)
        ids = tuple(map(int, batch["input_ids"][0]))
        if not images:
            return Segment(ids, (False,) * len(ids))
        shown = {name: batch[name] for name in self.processor.image_processor.model_input_names if name in batch}
        if self.family.tiles == "joined":
            shown = {"pixel_values": torch.cat([torch.as_tensor(tiles) for tiles in shown["pixel_values"]])[None]}
        return Segment(ids, tuple(i == self.image_token_id for i in ids), (shown,))


def _shown_image(data: bytes) -> Image.Image:
    """An image of a problem. UserError where it cannot be shown to a model."""
    name = f"image {content_hash(data)}"
    image = open_image(data, name)
    check_aspect(image, name)
    return image


def _segment_bytes(segment: Segment) -> int:
    """Pixels, and about 50 bytes per token for its id and its place in the mask."""
    return sum(tensor.nbytes for image in segment.images for tensor in image.values()) + 50 * len(segment.ids)


def _user_turn(text: str, n_images: int) -> dict[str, Any]:
    content: list[dict[str, str]] = [{"type": "image"}] * n_images
    return {"role": "user", "content": [*content, {"type": "text", "text": text}] if text else content}


def _placeholder_ids(tokenizer: Any, image_token_id: int, end_of_turn: int) -> tuple[int, ...]:
    """Ids that a template or a processor writes, and a policy must not: an image placeholder that it samples breaks the
    next forward pass. All special ids but those that end a text or a turn."""
    names = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>")
    known = tokenizer.get_vocab()
    special = {known[name] for name in names if name in known} | set(tokenizer.all_special_ids) | {image_token_id}
    return tuple(sorted(special - {end_of_turn, tokenizer.eos_token_id, tokenizer.pad_token_id}))
