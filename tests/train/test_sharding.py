"""A sharded model (FSDP2, two processes, gloo): bfloat16 products, float32 weights, a frozen tower that runs once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from torch.distributed.tensor import DTensor

from tests.train.two_processes import in_two, variables
from train import merge
from train.prm import make_trainer, split_rows
from train.reward.config import MergeConfig, PrmConfig, RowsConfig
from train.reward.model import new_model


def watched(model: Any, calls: Counter[str], types: set[Any]) -> None:
    """Count calls inside a text layer and a block of the tower, and note the dtypes that a product is made in."""
    text, tower = model.model.language_model.layers[0].mlp, model.model.visual.blocks[0].mlp
    text.register_forward_pre_hook(lambda module, given: calls.update(["text"]))
    tower.register_forward_hook(lambda module, given, made: calls.update(["tower", f"tower {made.requires_grad}"]))
    text.register_forward_pre_hook(lambda module, given: types.add((given[0].dtype, module.up_proj.weight.dtype)))


def trained(process: PartialState, config: PrmConfig) -> None:
    checkpoint = new_model(config)
    train, held_out = split_rows(config, checkpoint.inputs)
    calls: Counter[str] = Counter()
    types: set[Any] = set()
    watched(checkpoint.model, calls, types)
    trainer = make_trainer(config, checkpoint, train, held_out)
    trainer.train()
    assert types == {(torch.bfloat16, torch.bfloat16)}
    batches = len(train) // 2
    # Text layers are recomputed in the backward pass, and the tower is not.
    assert calls == {"text": 2 * batches, "tower": batches, "tower False": batches}, (calls, batches)
    weights = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    assert all(isinstance(weight, DTensor) and weight.dtype == torch.float32 for weight in weights)
    for state in trainer.optimizer.state.values():
        assert {state["exp_avg"].dtype, state["exp_avg_sq"].dtype} == {torch.float32}
        assert state["exp_avg"].to_local().numel() < state["exp_avg"].numel()
    trainer.save_model()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rank", [0, 4])
def test_products_are_in_bfloat16_weights_in_float32_and_a_frozen_tower_runs_once(
    tiny_backbone: Callable[[str], Path], dataset: Path, tmp_path: Path, rank: int
) -> None:
    config = PrmConfig(  # the launcher asks for bfloat16: Trainer refuses a flag for it on a CPU
        dataset,
        tmp_path / "run",
        str(tiny_backbone("qwen3_vl")),
        rows=RowsConfig(batch_tokens=2000),
        lora_rank=rank,
        checkpointing=True,
        held_out=0.0,
        accumulate=2,
    )
    in_two(trained, config, environment={**os.environ, **variables("fsdp2", "bf16")})
    assert (tmp_path / "run" / ("adapter_model.safetensors" if rank else "model.safetensors")).exists()


def test_shards_without_their_run_are_refused(tmp_path: Path, backbone: Path) -> None:
    (tmp_path / "checkpoint-2/pytorch_model_fsdp_0").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"config.yaml is missing, which says what model the shards in .* restore it"):
        merge.main(MergeConfig(tmp_path / "checkpoint-2", tmp_path / "merged"))
    (tmp_path / "config.yaml").write_text(f"{{dataset: d.parquet, run: r, backbone: {backbone}}}")
    with pytest.raises(ValueError, match=r"the shards in .* are not those of the model of .*; restore the config, or"):
        merge.main(MergeConfig(tmp_path / "checkpoint-2", tmp_path / "merged"))
    with pytest.raises(ValueError, match="has neither adapters nor shards to merge; load it directly"):
        merge.main(MergeConfig(backbone, tmp_path / "merged"))
    assert not (tmp_path / "merged").exists()
