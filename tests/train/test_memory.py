"""The memory that a plan says a run needs is what a run takes, to 20%: peaks of real steps, by torch's profiler."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from accelerate import Accelerator, PartialState
from torch.profiler import ProfilerActivity, profile

from tests.conftest import solved
from tests.tiny_backbones import BACKBONES, QWEN_TOWER, mrope, qwen2_processor, write_qwen
from tests.train.two_processes import in_two, variables
from train import prm
from train.loop.batches import model_inputs
from train.prm import split_rows
from train.reward.batches import NOT_INPUTS, batch_rows
from train.reward.config import LossConfig, PrmConfig, RowsConfig
from train.reward.data import LabelledRow
from train.reward.losses import training_loss
from train.reward.memory import Layout, Need, need_of, sizes_of
from train.reward.model import new_model, trainable
from train.reward.shapes import step_of
from vlprm.schema import Problem

CASES: dict[str, dict[str, Any]] = {
    "all parts": {"freeze": ()},
    "text layers": {},
    "text layers, recomputed": {"checkpointing": True},
    "adapters, recomputed": {"lora_rank": 8, "checkpointing": True},
    "verdicts": {"head": "verdict"},
    "critiques": {"loss": LossConfig(critique=1.0)},
    "bfloat16": {"bfloat16": True},
    "bfloat16, recomputed": {"bfloat16": True, "checkpointing": True},
}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory, problems: list[Problem]) -> Path:
    """A backbone in which states of tokens need more memory than anything else, with a large vocabulary."""
    folder = tmp_path_factory.mktemp("wide")
    texts = ["\n\n".join(s.text for s in solved(p)) + f"\nuser\nassistant\n{p.question}\n" for p in problems]
    processor = qwen2_processor(transformers.Qwen2_5_VLProcessor, texts)
    text = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 6}
    text |= {"num_key_value_heads": 6, "rope_parameters": mrope(4, 6, 6), "vocab_size": 8000}
    vision = {**QWEN_TOWER, "patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1], "out_hidden_size": 192}
    vision |= {"hidden_size": 64, "intermediate_size": 128}
    write_qwen(folder, transformers.Qwen2_5_VLForConditionalGeneration, processor, text, vision)
    return folder


def rows_of(config: PrmConfig) -> list[LabelledRow]:
    """Three times the same row, so that attention needs no mask."""
    checkpoint = new_model(config, shapes_only=True)
    train, _ = split_rows(config, checkpoint.inputs)
    return [train[0][0]] * 3


def computed(config: PrmConfig, layout: Layout, rows: list[LabelledRow]) -> Need:
    checkpoint = new_model(config, shapes_only=True)
    model = trainable(config, checkpoint).to("meta")
    batch = batch_rows(rows, checkpoint.inputs)
    step = step_of(model, batch, config.loss, config.checkpointing, autocast=config.bfloat16)
    return need_of(sizes_of(model), layout, step, config.accumulate, 4)


def measured(work: Callable[[], None]) -> int:
    """The most bytes that torch allocated at a time on the CPU during the work."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    alive = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    return most


def prepared(config: PrmConfig) -> tuple[Any, Any, torch.optim.Optimizer]:
    checkpoint = new_model(config)
    model = trainable(config, checkpoint).train()
    if config.checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    return checkpoint, model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])


@pytest.mark.parametrize("case", CASES)
def test_a_step_takes_what_its_shapes_say(case: str, wide: Path, dataset: Path, tmp_path: Path) -> None:
    config = PrmConfig(dataset, tmp_path, str(wide), rows=RowsConfig(of="paths"), **CASES[case])
    rows = rows_of(config)
    checkpoint, model, optimizer = prepared(config)
    batch = batch_rows(rows, checkpoint.inputs)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16):
            output = model(**model_inputs(batch, NOT_INPUTS))
        training_loss(output, batch, batch["totals"], config.loss).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # the first makes the moments
    need = computed(config, Layout(1, False), rows)
    assert measured(step) == pytest.approx(need.total - need.weights - need.moments, rel=0.2)
    assert (need.logits > 0) == (case in ("verdicts", "critiques"))
    assert need.weights == sum(p.numel() * p.element_size() for p in model.parameters())
    moments = [m for state in optimizer.state.values() for m in state.values() if m.dim()]
    assert need.moments == sum(m.numel() * m.element_size() for m in moments)


def sharded_step(process: PartialState, config: PrmConfig, rows: list[LabelledRow], needed: float) -> None:
    checkpoint, model, optimizer = prepared(config)
    batch = batch_rows(rows, checkpoint.inputs)
    accelerator = Accelerator()
    model, optimizer = accelerator.prepare(model, optimizer)

    def step() -> None:
        accelerator.backward(
            training_loss(model(**model_inputs(batch, NOT_INPUTS)), batch, batch["totals"], config.loss)
        )
        optimizer.step()
        optimizer.zero_grad()

    step()
    # A collective's buffers live until its thread ends, which may be late on a busy machine.
    taken = min(measured(step) for _ in range(12))
    assert taken == pytest.approx(needed, rel=0.2), f"{taken}, not {needed}"


@pytest.mark.timeout(300)
def test_a_sharded_step_takes_what_its_shapes_say(
    wide: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PrmConfig(dataset, tmp_path, str(wide), rows=RowsConfig(of="paths"), checkpointing=True)
    rows = rows_of(config)
    need = computed(config, Layout(2, True), rows)
    in_two(sharded_step, config, rows, need.total - need.weights - need.moments, environment=variables("fsdp2"))


def test_a_plan_needs_no_weights(
    backbone: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(backbone, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    config = PrmConfig(dataset, tmp_path / "run", str(tmp_path / "bare"), checkpointing=True, bfloat16=True)
    prm.main(dataclasses.replace(config, dry_run=True))
    said = capsys.readouterr().out
    assert re.findall(r"^ +(\d+)  (none|DDP|FSDP2) ", said, re.MULTILINE) == [
        ("1", "none"), ("8", "DDP"), ("8", "FSDP2"), ("16", "FSDP2"),
    ]  # fmt: skip
    assert "vision: " in said
    assert "The first row" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("budget", [1, 420])
def test_a_full_batch_is_the_largest_that_any_row_can_make(
    backbone: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], budget: int
) -> None:
    rows = RowsConfig(of="paths", batch_tokens=budget)
    config = PrmConfig(dataset, tmp_path, str(backbone), rows=rows, epochs=2, checkpointing=True)
    train, _ = split_rows(config, new_model(config, shapes_only=True).inputs)
    sizes = [len(row.row.ids) for i in range(len(train)) for row in train[i]]
    prm.main(dataclasses.replace(config, dry_run=True))
    said = capsys.readouterr().out
    (found,) = re.findall(r"a full batch: (\d+) rows of (\d+) tokens", said)
    assert int(found[0]) * int(found[1]) == max(size * max(1, budget // size) for size in sizes)
    (full,) = re.findall(r"per full batch, and (\d+) of them in all", said)
    assert 1 <= int(full) <= len(train)


@pytest.mark.parametrize("family", BACKBONES)
def test_every_family_runs_on_shapes(tiny_backbone: Any, dataset: Path, tmp_path: Path, family: str) -> None:
    config = PrmConfig(dataset, tmp_path, str(tiny_backbone(family)), rows=RowsConfig(of="paths"), checkpointing=True)
    rows = rows_of(config)
    need = computed(config, Layout(1, False), rows)
    kept = computed(dataclasses.replace(config, checkpointing=False), Layout(1, False), rows)
    assert 0 < need.activations < kept.activations
