"""What a policy keeps changes nothing but the work: prefixes are read once, images are encoded once, and new weights or
a full cache drop what was kept."""

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from vlprm.model.loading import Checkpoint, load_policy
from vlprm.model.packing import PackedRow
from vlprm.policy import Continuation, Request
from vlprm.policy.kept import BLOCK, Kept, find_prefix
from vlprm.policy.local import LocalPolicy, generate
from vlprm.policy.prefill import Prefilled, prefill
from vlprm.schema import Problem, Region, Step
from vlprm.steps import parse_step
from vlprm.tasks import TASKS

ZOOM = '[zoom] {"bbox_2d": [0, 0, 500, 500]}'
A, B = parse_step("[perception] row 1: red none blue green"), parse_step("[perception] row 2: red none")


@pytest.fixture(scope="module")
def printed() -> list[Problem]:
    return [TASKS["fine_print"].problem("train", i) for i in range(2)]


def zoomed(size: int = 256) -> Step:
    return dataclasses.replace(parse_step(ZOOM), region=Region(0, 0, size, size))


def rows_of(policy: Checkpoint, problem: Problem, *steps: Sequence[Step]) -> list[PackedRow]:
    return [policy.inputs.row(problem, of_row) for of_row in steps]


def read(policy: Checkpoint, problem: Problem, rows: Sequence[PackedRow], kept: Kept) -> Prefilled:
    prompt = len(policy.inputs.prompt(problem).ids)
    with torch.inference_mode():
        return prefill(policy, rows, [prompt] * len(rows), kept)


def counted(policy: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts the tokens that the text model reads and the patches that the vision tower does."""
    counts = {"tokens": 0, "patches": 0}
    text, visual = policy.model.model.language_model, policy.model.model.visual
    layer, tower = text.forward, visual.forward

    def of_text(*args: Any, **given: Any) -> Any:
        counts["tokens"] += given["inputs_embeds"].shape[0] * given["inputs_embeds"].shape[1]
        return layer(*args, **given)

    def of_tower(pixels: torch.Tensor, *args: Any, **given: Any) -> Any:
        counts["patches"] += len(pixels)
        return tower(pixels, *args, **given)

    monkeypatch.setattr(text, "forward", of_text)
    monkeypatch.setattr(visual, "forward", of_tower)
    return counts


def assert_equal(one: Prefilled, other: Prefilled) -> None:
    assert torch.equal(one.mask, other.mask)
    assert torch.equal(one.next_position, other.next_position)
    assert torch.allclose(one.logits, other.logits, atol=1e-5)
    for layer, expected in zip(one.cache.layers, other.cache.layers, strict=True):
        for got, wanted in ((layer.keys, expected.keys), (layer.values, expected.values)):
            shown = one.mask.bool()[:, None, :, None]
            assert torch.allclose(got.masked_fill(~shown, 0), wanted.masked_fill(~shown, 0), atol=1e-5)


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl", "qwen2_vl", "internvl", "llava_onevision"])
def test_a_kept_prefix_gives_the_same_as_reading_it(
    tiny_backbone: Callable[[str], Path], printed: list[Problem], family: str
) -> None:
    """Rows with kept prefixes of several lengths, beside a row without one, in any order."""
    policy, problem = load_policy(tiny_backbone(family)), printed[0]
    steps = [(A,), (A, zoomed()), (B,), (A, zoomed(), B, A)]
    rows = [*rows_of(policy, problem, *steps), *rows_of(policy, printed[1], (B,))]
    kept = Kept()
    read(policy, problem, rows_of(policy, problem, (A, zoomed()), (A,)), kept)
    assert kept.blocks
    known = [p.known for row in rows if (p := find_prefix(kept, row, len(policy.inputs.prompt(problem).ids)))]
    assert known[0] >= BLOCK
    assert known[3] >= known[1] > known[0]
    assert known[4] <= rows[4].image_mask.index(True), "another image is another prefix"
    assert_equal(read(policy, problem, rows, kept), read(policy, problem, rows, Kept()))


def test_a_rollout_reads_only_what_is_new(
    backbone: Path, printed: list[Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, problem = load_policy(backbone), printed[0]
    counts, kept = counted(policy, monkeypatch), Kept()
    first = Request(problem, (A,), 2, "k", 0, max_tokens=1)
    generate(policy, [first], kept)
    whole, prompt = dict(counts), len(policy.inputs.row(problem, (A,)).ids)
    assert whole["tokens"] == prompt
    longer = dataclasses.replace(first, steps=(A, zoomed()))
    generate(policy, [longer], kept)
    new = len(policy.inputs.row(problem, longer.steps).ids) - prompt
    assert new <= counts["tokens"] - whole["tokens"] < new + BLOCK
    crop = policy.inputs.row(problem, longer.steps).images[-1]["pixel_values"]
    assert counts["patches"] - whole["patches"] == len(crop)
    assert not torch.equal(crop, policy.inputs.row(problem, ()).images[0]["pixel_values"])


def test_equal_pixels_are_encoded_once(backbone: Path, printed: list[Problem], monkeypatch: pytest.MonkeyPatch) -> None:
    """In one batch, and in later ones even if keys and values are gone."""
    policy, kept = load_policy(backbone), Kept()
    counts = counted(policy, monkeypatch)
    asked = [Request(printed[0], steps, 1, "k", 0, max_tokens=1) for steps in ((A,), (B,), ())]
    expected = generate(policy, asked)
    counts["patches"] = 0
    assert generate(policy, asked, kept) == expected
    image = policy.inputs.row(printed[0], ()).images[0]["pixel_values"]
    assert counts["patches"] == len(image)
    kept.blocks.clear()
    assert generate(policy, asked, kept) == expected
    assert counts["patches"] == len(image)


@pytest.mark.parametrize("one_step", [False, True])
def test_a_sampled_turn_is_not_read_again(
    backbone: Path, printed: list[Problem], monkeypatch: pytest.MonkeyPatch, one_step: bool
) -> None:
    policy, problem, kept = load_policy(backbone), printed[0], Kept()
    text = f"[perception] a b c d e f g h i j k l m n o\n\n{'' if one_step else ZOOM}"
    ids = [*policy.inputs.text.encode(text), policy.inputs.end_of_turn]
    monkeypatch.setattr(
        "vlprm.policy.local._Decoder._choose",
        lambda self, logits_NV, open_N, t: torch.full((len(open_N),), ids[t]),
    )
    request = Request(problem, (), 1, "k", 0, max_tokens=len(ids), one_step=one_step)
    ((written,),) = generate(policy, [request], kept)
    row = policy.inputs.row(problem, ())
    (prefix,) = (find_prefix(kept, dataclasses.replace(row, ids=(*row.ids, *written.ids)), len(row.ids)),)
    assert prefix is not None
    assert prefix.known > len(row.ids) + len(written.ids) - 2 * BLOCK


def test_new_weights_drop_what_was_kept(backbone: Path, printed: list[Problem]) -> None:
    policy, kept = load_policy(backbone), Kept()
    asked = [Request(printed[0], (A,), 2, "k", 0, max_tokens=8)]
    before = generate(policy, asked, kept)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=0.05)
    policy.model(**policy.inputs.batch([policy.inputs.row(printed[0], (A,))])).logits.logsumexp(-1).sum().backward()
    optimizer.step()
    after = generate(policy, asked, kept)
    assert after == generate(policy, asked)
    assert after != before


def test_memory_is_bounded(backbone: Path, problems: list[Problem], monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load_policy(backbone)
    asked = [Request(p, (), 2, p.id, 0, max_tokens=8) for p in problems]
    expected = generate(policy, asked)
    for size in (1, 20_000, 200_000):
        monkeypatch.setattr("vlprm.policy.kept.PREFIX_BYTES", size)
        monkeypatch.setattr("vlprm.policy.kept.FEATURE_BYTES", size)
        kept = Kept()
        for _ in range(2):
            assert generate(policy, asked, kept) == expected
            assert kept.blocks.currsize <= size
            assert kept.features.currsize <= size


def test_a_policy_keeps_across_its_calls(
    backbone: Path, printed: list[Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_policy(backbone)
    counts, engine = counted(policy, monkeypatch), LocalPolicy(policy)

    async def asked(steps: tuple[Step, ...]) -> list[Continuation]:
        return await engine.sample(Request(printed[0], steps, 1, "k", 0, max_tokens=1))

    asyncio.run(asked(()))
    first = counts["tokens"]
    asyncio.run(asked((A,)))
    assert counts["tokens"] - first < first
