"""Rollouts with zooms: limits, refusals told to the policy, sampled ids, and Qwen's own tool call."""

import asyncio
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoProcessor

from tests.tiny_backbones import TOOL_TEMPLATE
from vlprm.images import crop, open_image
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import Checkpoint, load_inputs, load_policy
from vlprm.model.packing import PackedRow
from vlprm.policy import Continuation, Request
from vlprm.policy import local as local_module
from vlprm.policy.local import LocalPolicy
from vlprm.policy.prefill import Prefilled
from vlprm.policy.rollout import OPEN, STOPS, next_steps, rollouts
from vlprm.schema import BLANK, Problem, Region, Solution, Step
from vlprm.serving.messages import messages
from vlprm.steps import join_steps, parse_step, split_steps
from vlprm.tasks import TASKS
from vlprm.zoom.policy import ZoomPolicy

ZOOM = '[zoom] {"bbox_2d": [0, 0, 500, 500], "label": "cup"}'
SMALL = '[zoom] {"bbox_2d": [0, 0, 1, 1]}'
CALL = (
    'It is small.\n<tool_call>\n{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 500, 500], "label":'
    ' "cup", "img_idx": 0}}\n</tool_call>'
)


class Scripted:
    """Writes one text after another, one per turn, and repeats the last; a text in a tuple is cut off."""

    def __init__(self, inputs: InputBuilder, *texts: str | tuple[str]) -> None:
        self.inputs, self.texts = inputs, itertools.chain(texts, itertools.repeat(texts[-1]))
        self.dialect, self.zoom = inputs.config.dialect, inputs.config.zoom
        self.seen_size, self.crop_tokens = inputs.seen_size, inputs.crop_tokens
        self.asked: list[Request] = []

    async def sample(self, request: Request) -> list[Continuation]:
        self.asked.append(request)
        self.inputs.row(request.problem, request.steps)
        text = next(self.texts)
        return [Continuation(text, 5, True) if isinstance(text, str) else Continuation(*text, 5, False)]

    def solve(self, problem: Problem, steps: Sequence[Step] = ()) -> Solution:
        (solution,) = asyncio.run(rollouts(self, Request(problem, tuple(steps), 1, "k", 0)))
        assert solution.stop in STOPS
        return solution


@pytest.fixture(scope="module")
def problem() -> Problem:
    return TASKS["fine_print"].problem("train", 0)


def built(backbone: Path, **policy: object) -> InputBuilder:
    return load_inputs(backbone, CheckpointConfig(zoom=ZoomPolicy(**policy)))  # type: ignore[arg-type]


def test_a_policy_that_is_told_why_may_try_again(backbone: Path, problem: Problem) -> None:
    inputs = built(backbone, on_refusal="tell")
    engine = Scripted(inputs, f"[perception] a\n\n{SMALL}", "[zoom] here", ZOOM, "[answer] bars")
    solution = engine.solve(problem)
    assert (solution.answer, solution.stop, solution.tokens) == ("bars", "answer", 20)
    assert [s.told.partition(":")[0] for s in solution.steps] == ["", "too_small", "bad_json", "", ""]
    assert [len(request.steps) for request in engine.asked] == [0, 2, 3, 4]
    row = inputs.row(problem, solution.steps)
    texts = [s.text for s in solution.steps]
    told = [
        f"{s.text}<|im_end|>\n<|im_start|>user\n{s.told}<|im_end|>\n<|im_start|>assistant\n" for s in solution.steps
    ]
    assert f"{texts[0]}\n\n{told[1]}{told[2]}{texts[3]}<|im_end|>" in inputs.tokenizer.decode(row.ids)
    written = inputs.tokenizer.decode([i for i, w in zip(row.ids, row.written_in, strict=True) if w >= 0])
    assert written == "<|im_end|>".join(["\n\n".join(texts[:2]), *texts[2:]]), "a message is not the policy's"
    assert len(row.images) == 2


def test_a_policy_that_never_listens_is_stopped(backbone: Path, problem: Problem) -> None:
    for text in (SMALL, f"{ZOOM}\n\n" * 10_000, "[zoom] <|image_pad|>" + "<|vision_start|><|image_pad|>" * 10_000):
        engine = Scripted(built(backbone, on_refusal="tell", max_zooms=3), text)
        solution = engine.solve(problem)
        assert (solution.stop, len(engine.asked), len(solution.steps)) == ("too_many_zooms", 4, 3)
    engine = Scripted(built(backbone), "[zoom] " + "<|image_pad|>" * 10_000)
    assert engine.solve(problem).stop == "bad_json"


@pytest.mark.parametrize("policy", [{"max_images": 2}, {"max_crop_tokens": 16}])
def test_what_is_over_the_budget_is_rolled_back(backbone: Path, problem: Problem, policy: dict[str, int]) -> None:
    """Text, ids and images end together at the last complete step."""
    inputs = built(backbone, **policy)
    assert inputs.crop_tokens(problem, Region(0, 0, 256, 256)) == 16
    solution = Scripted(inputs, f"[perception] a\n\n{ZOOM}", f"[perception] b\n\n{ZOOM}").solve(problem)
    assert solution.stop == "budget"
    assert [s.text for s in solution.steps] == ["[perception] a", ZOOM, "[perception] b"]
    assert len(inputs.row(problem, solution.steps).images) == 2
    tells = built(backbone, **dataclasses.asdict(inputs.config.zoom) | {"on_refusal": "tell"})
    answered = Scripted(tells, ZOOM, ZOOM, "[answer] bars").solve(problem)
    assert (answered.answer, answered.steps[1].told[:7], answered.steps[1].region) == ("bars", "budget:", None)


def test_what_is_cut_short_is_no_step(backbone: Path, problem: Problem) -> None:
    first, whole = parse_step("[perception] a"), "[perception] b\n\n"
    for text, kept in (("[perception] b", 1), (whole + "[ans", 2), (whole, 2), (f"{whole}{ZOOM}", 2), ("", 1)):
        solution = Scripted(built(backbone), (text,)).solve(problem, [first])
        assert (solution.stop, len(solution.steps), solution.tokens) == ("length", kept, 5)
        engine = Scripted(built(backbone), (text,))
        so_far = Solution(problem.id, (first,), None, OPEN, 2)
        (grown,) = asyncio.run(next_steps(engine, Request(problem, (), 1, "k", 0), so_far))
        assert grown == dataclasses.replace(so_far, stop="length", tokens=7)


def test_a_crop_is_shown_as_the_policy_says(backbone: Path, problem: Problem) -> None:
    image, region = open_image(problem.images[0]), Region(0.5, 0, 30, 19.5)
    assert crop(image, region).size == (30, 20)
    assert ZoomPolicy().crop(image, region).size == (30, 20)
    assert ZoomPolicy(enlarge=3, max_crop_pixels=10_000).crop(image, region).size == (90, 60)
    assert ZoomPolicy(enlarge=3, max_crop_pixels=2400).crop(image, region).size == (60, 40)
    assert ZoomPolicy(max_crop_pixels=8192).crop(image, Region(0, 0, 512, 256)).size == (128, 64)
    assert ZoomPolicy(max_crop_pixels=16).crop(image, Region(0, 0, 512, 1)).size == (90, 1), "never without a pixel"
    larger = built(backbone, enlarge=4, max_crop_pixels=16_384)
    assert larger.seen_size(problem, Region(0, 0, 32, 32)) == (128, 128)
    assert built(backbone).seen_size(problem, Region(0, 0, 32, 32)) == (32, 32)
    assert built(backbone).crop_tokens(problem, Region(0, 0, 64, 64)) == 4


def test_a_crop_of_a_crop_is_in_the_pixels_that_were_seen(backbone: Path, problem: Problem) -> None:
    inputs = load_inputs(backbone, CheckpointConfig(dialect="absolute_resized"))
    # The image of 512 x 512 is seen at 128 x 128; its left upper quarter too.
    first = '[zoom] {"bbox_2d": [0, 0, 64, 64]}'
    second = '[zoom] {"bbox_2d": [64, 64, 128, 128], "img_idx": 1}'
    solution = Scripted(inputs, first, second, "[answer] bars").solve(problem)
    assert [s.region for s in solution.steps] == [Region(0, 0, 256, 256), Region(128, 128, 256, 256), None]


def test_zooms_of_several_images_and_of_none(backbone: Path, problem: Problem) -> None:
    other = TASKS["fine_print"].problem("train", 1)
    both = dataclasses.replace(problem, images=(*problem.images, *other.images))
    inputs = built(backbone)
    second = '[zoom] {"bbox_2d": [0, 0, 250, 250], "img_idx": 1}'
    solution = Scripted(inputs, second, "[answer] bars").solve(both)
    assert solution.steps[0].region == Region(0, 0, 128, 128, 1)
    alone = inputs.row(other, [Step("zoom", second, Region(0, 0, 128, 128))])
    shown, expected = (row.images[-1]["pixel_values"] for row in (inputs.row(both, solution.steps), alone))
    assert torch.equal(shown, expected)
    white = inputs.row(problem, [Step("zoom", ZOOM, Region(64, 64, 128, 128, BLANK))]).images[-1]["pixel_values"]
    assert white.min() == white.max() == 1
    with pytest.raises(ValueError, match=r"on image 2, but the problem has 2; correct the record"):
        inputs.row(both, [Step("zoom", ZOOM, Region(0, 0, 9, 9, 2))])
    none = dataclasses.replace(problem, images=())
    assert Scripted(inputs, ZOOM).solve(none).stop == "unknown_image"


# --- ids


def spelt(inputs: InputBuilder, text: str) -> list[int]:
    """The text with one id per byte, as no tokenizer would encode it."""
    return [inputs.tokenizer(c, add_special_tokens=False)["input_ids"][0] for c in text]


@pytest.fixture
def scripts(backbone: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Checkpoint, list[list[int]], list[PackedRow]]:
    """A policy that samples these ids, one script per call, and the rows from which it is asked to continue."""
    policy, written, rows = load_policy(backbone), [], []
    prefill = local_module.prefill

    def recorded(checkpoint: Checkpoint, given: Sequence[PackedRow], *rest: Any) -> Prefilled:
        rows.extend(given)
        return prefill(checkpoint, given, *rest)

    monkeypatch.setattr(local_module, "prefill", recorded)

    def choose(decoder: object, logits_NV: torch.Tensor, open_N: torch.Tensor, t: int) -> torch.Tensor:
        return torch.full((len(open_N),), written[len(rows) - 1][t])

    monkeypatch.setattr(local_module._Decoder, "_choose", choose)
    return policy, written, rows


@pytest.mark.parametrize("behind", ["", "\n\n[answer] blind"])
@pytest.mark.parametrize("prefix", [(), (parse_step("[perception] a"),)])
def test_a_rollout_goes_on_from_the_ids_that_were_sampled(
    scripts: tuple[Checkpoint, list[list[int]], list[PackedRow]],
    problem: Problem,
    prefix: tuple[Step, ...],
    behind: str,
) -> None:
    policy, written, rows = scripts
    inputs = policy.inputs
    text = f"[perception] b\n\n{ZOOM}"
    ids = spelt(inputs, ("\n\n" if prefix else "") + text)
    assert inputs.step(problem, parse_step(text), after=prefix[-1] if prefix else None).ids != tuple(ids)
    end = [inputs.end_of_turn]
    written += [[*ids, *spelt(inputs, behind), *end], [*ids[-len(ZOOM) :], *end], spelt(inputs, "[answer] bars") + end]
    (solution,) = asyncio.run(rollouts(LocalPolicy(policy), Request(problem, prefix, 1, "k", 0)))
    assert (solution.answer, len(solution.steps)) == ("bars", len(prefix) + 4)
    shown = inputs.step(problem, Step("zoom", "", solution.steps[-2].region), after=None)
    expected = [*rows[0].ids, *ids, *shown.ids]
    assert list(rows[1].ids) == expected
    assert list(rows[2].ids) == [*expected, *ids[-len(ZOOM) :], *shown.ids]
    assert sum(rows[2].image_mask) == sum(rows[0].image_mask) + 2 * sum(shown.image_mask)
    assert len(rows[2].images) == 3


def test_where_no_id_ends_with_the_zoom_its_text_is_read(inputs: InputBuilder, problem: Problem) -> None:
    zoom = dataclasses.replace(parse_step(ZOOM), region=Region(0, 0, 256, 256))
    steps = (parse_step("[perception] a"), zoom)
    text = join_steps(steps)
    others = tuple(spelt(inputs, text[:-1] + "x"))
    assert inputs.sampled_row(problem, steps, [(2, others)]).ids == inputs.row(problem, steps).ids
    assert inputs.sampled_row(problem, steps, []).ids == inputs.row(problem, steps).ids


# --- Qwen's tool call


def test_a_tool_call_is_answered_by_a_tool(backbone: Path, problem: Problem) -> None:
    """The crop comes in the tool's turn of the family's chat template, in process and served; the prompt declares the
    tool."""
    processor = AutoProcessor.from_pretrained(backbone)
    processor.chat_template = TOOL_TEMPLATE
    processor.tokenizer.add_tokens(["<tool_call>", "</tool_call>"])
    checkpoint_config = CheckpointConfig(zoom=ZoomPolicy(form="qwen_tool", on_refusal="tell"))
    inputs = InputBuilder(processor, checkpoint_config, AutoConfig.from_pretrained(backbone))
    tagged = Scripted(inputs, CALL, ZOOM, "So bars.\n\n[answer] bars").solve(problem)
    assert [s.kind for s in split_steps(CALL)] == ["zoom"]
    assert (tagged.answer, tagged.steps[0].region) == ("bars", Region(0, 0, 256, 256))
    assert tagged.steps[1].told.startswith("bad_json: "), "the other form is none"
    text = processor.tokenizer.decode(inputs.row(problem, tagged.steps).ids)
    assert '"name": "image_zoom_in_tool"' in text.partition("<|im_start|>user")[0]
    assert f"{CALL}<|im_end|>\n<|im_start|>user\n<tool_response>\n<|vision_start|>" in text
    assert f"<tool_response>\n{tagged.steps[1].told}\n</tool_response><|im_end|>\n" in text
    assert inputs.text.control_token(CALL) is None
    turns = messages(problem, tagged.steps, inputs, lambda image, region, policy: {"type": "image"})
    rendered = processor.apply_chat_template(
        turns,
        tools=checkpoint_config.zoom.tools,
        tokenize=False,
        continue_final_message=True,
        add_generation_prompt=False,
    )
    pads = "<|image_pad|>"
    while pads + pads in text:
        text = text.replace(pads + pads, pads)
    assert rendered == text
