"""Which parts are trained, at which rates, and from which weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_backbones import BACKBONES
from train.prm import make_trainer
from train.reward.config import LossConfig, PrmConfig, RowsConfig
from train.reward.model import new_model, parameter_groups, trainable
from train.reward.planning import split_rows


def test_adapters_depend_on_the_seed_alone(backbone: Path, dataset: Path, tmp_path: Path) -> None:
    def adapters(seed: int) -> dict[str, torch.Tensor]:
        config = PrmConfig(dataset, tmp_path, str(backbone), lora_rank=4, seed=seed)
        model = trainable(config, new_model(config))
        return {name: p for name, p in model.named_parameters() if "lora_A" in name}

    first, again, other = adapters(0), adapters(0), adapters(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("family", BACKBONES)
def test_adapters_are_on_all_linear_layers_of_the_text_layers_alone(
    tiny_backbone: Any, dataset: Path, tmp_path: Path, family: str
) -> None:
    config = PrmConfig(dataset, tmp_path, str(tiny_backbone(family)), lora_rank=4)
    linear = {name for name, part in new_model(config).model.named_modules() if isinstance(part, torch.nn.Linear)}
    adapted = {
        name.removeprefix("base_model.model.").removesuffix(".base_layer")
        for name, _ in trainable(config, new_model(config)).named_modules()
        if name.endswith(".base_layer")
    }
    assert adapted == {name for name in linear if "language_model.layers." in name}


@pytest.mark.parametrize(
    ("family", "options", "trained"),
    [
        ("qwen2_5_vl", {}, False),
        ("qwen2_5_vl", {"surprise": True}, False),
        ("qwen2_5_vl", {"loss": LossConfig(critique=0.5)}, True),
        ("qwen2_5_vl", {"head": "verdict"}, True),
        ("gemma3", {}, True),  # its LM head is its embeddings
    ],
)
def test_an_lm_head_that_no_loss_reaches_is_frozen(
    tiny_backbone: Any, dataset: Path, tmp_path: Path, family: str, options: dict[str, Any], trained: bool
) -> None:
    config = replace(PrmConfig(dataset, tmp_path, str(tiny_backbone(family))), **options)
    assert trainable(config, new_model(config)).lm_head.weight.requires_grad == trained


def test_a_step_head_learns_at_its_own_rate_whoever_asks_for_the_optimizer(
    backbone: Path, dataset: Path, tmp_path: Path
) -> None:
    """DeepSpeed drops the optimizer that the Trainer was given, and asks for another."""
    rows = RowsConfig(batch_tokens=700)
    config = PrmConfig(dataset, tmp_path, str(backbone), rows=rows, learning_rate=1e-4, head_learning_rate=2e-3)
    checkpoint = new_model(config)
    trainer = make_trainer(config, checkpoint, *split_rows(config, checkpoint.inputs))
    trainer.optimizer = None
    groups = trainer.create_optimizer().param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1e-4, 0.01), (2e-3, 0.01)]
    (head,) = groups[1]["params"]
    assert head is checkpoint.model.score.weight


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "internvl"])
def test_text_layers_vision_tower_and_head_have_their_own_rates(
    tiny_backbone: Any, dataset: Path, tmp_path: Path, family: str
) -> None:
    rates = {"learning_rate": 1e-4, "vision_learning_rate": 2e-5, "head_learning_rate": 3e-3}
    config = PrmConfig(dataset, tmp_path, str(tiny_backbone(family)), freeze=(), beta2=0.95, **rates)  # type: ignore[arg-type]
    checkpoint = new_model(config)
    names = {parameter: name for name, parameter in trainable(config, checkpoint).named_parameters()}
    groups = parameter_groups(config, checkpoint.inputs.family, checkpoint.model)
    assert {group["betas"] for group in groups} == {(0.9, 0.95)}
    by_rate = {group["lr"]: [names[parameter] for parameter in group["params"]] for group in groups}
    of = checkpoint.inputs.family
    vision = {n for n in names.values() if f".{of.vision}." in n and f".{of.projector}." not in n}
    assert set(by_rate[2e-5]) == vision
    assert by_rate[3e-3] == ["score.weight"]
    assert len(by_rate[1e-4]) + len(vision) + 2 == len(names)  # the LM head is not trained
