"""A trained head is kept or refused, and adapters find the backbone that they were trained on or refuse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_backbones import BACKBONES
from train import prm
from train.reward.config import LossConfig, PrmConfig, RowsConfig
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.loading import load_policy
from vlprm.model.lora import add_adapters, origin
from vlprm.model.reward_loading import load_reward_model, parameter_count, save_reward_model

Folders = Callable[[str], Path]


def reward_model(backbone: Path, folder: Path, head: Any = "step", **options: Any) -> Path:
    """A reward model whose head is not zero."""
    made = load_reward_model(backbone, new_head=head, **options)
    if head == "step":
        torch.nn.init.normal_(made.model.score.weight, generator=torch.Generator().manual_seed(0))
    save_reward_model(made, folder, made.config)
    return folder


def head_of(folder: Path, **options: Any) -> torch.Tensor:
    return load_reward_model(folder, **options).model.score.weight


# --- a reward model as a backbone


@pytest.mark.parametrize("surprise", [False, True])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_a_trained_head_is_kept(tiny_backbone: Folders, tmp_path: Path, family: str, surprise: bool) -> None:
    """One family stores it under another name."""
    trained = reward_model(tiny_backbone(family), tmp_path / "prm", reads_surprise=surprise)
    kept = head_of(trained, new_head="step", reads_surprise=surprise)
    assert torch.equal(kept, head_of(trained))
    assert kept.abs().max() > 0
    again = load_reward_model(trained, new_head="step", reads_surprise=surprise)
    save_reward_model(again, tmp_path / "again", again.config)
    assert torch.equal(head_of(tmp_path / "again"), kept)


def test_training_goes_on_from_a_trained_head(dataset: Path, backbone: Path, tmp_path: Path) -> None:
    trained = reward_model(backbone, tmp_path / "prm")
    config = PrmConfig(dataset, tmp_path / "next", str(trained), learning_rate=0.0, head_learning_rate=0.0)
    prm.main(replace(config, rows=RowsConfig(batch_tokens=2000), held_out=0.2))
    assert torch.equal(head_of(tmp_path / "next"), head_of(trained))


def test_a_head_that_would_be_lost_is_refused(dataset: Path, backbone: Path, tmp_path: Path) -> None:
    """Before the run's folder is opened, and for whoever loads the folder."""
    step = reward_model(backbone, tmp_path / "step")
    surprised = reward_model(backbone, tmp_path / "surprised", reads_surprise=True)
    verdict = reward_model(backbone, tmp_path / "verdict", "verdict", verdicts=("Y", "N"))
    valued = reward_model(backbone, tmp_path / "valued", extra_outputs=("value",))
    adapters = adapted(backbone, tmp_path / "lora")
    config = PrmConfig(dataset, tmp_path / "run", head="step")
    for folder, changes, said in (
        (step, {"head": "verdict"}, "has a trained step head, which head: verdict would drop; set head: step"),
        (step, {"surprise": True}, "the trained head of .*step has surprise: false; set the same"),
        (surprised, {}, "the trained head of .*surprised has surprise: true; set the same"),
        (step, {"loss": LossConfig(value=1.0)}, "has the outputs correct, perception, reasoning; train the same"),
        (valued, {}, "the trained head of .*valued has the outputs correct, perception, reasoning, value; train the"),
        (verdict, {"head": "verdict"}, "was trained with the verdicts Y and N; set the same"),
        (adapters, {}, "holds adapters without their backbone; merge them with train.merge, and give the result"),
        (adapters, {"lora_rank": 2}, "holds adapters"),
    ):
        asked = replace(config, backbone=str(folder), **changes)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=said):
            prm.main(asked)
        assert not asked.run.exists()
        with pytest.raises(ValueError, match=said):
            load_reward_model(
                folder, new_head=asked.head, reads_surprise=asked.surprise, verdicts=asked.verdicts,
                extra_outputs=asked.loss.extra_outputs,
            )  # fmt: skip
    assert load_reward_model(verdict, new_head="verdict", verdicts=("Y", "N")).config.verdicts == ("Y", "N")


# --- the backbone of adapters


def adapted(backbone: Path, folder: Path, name: str | None = None) -> Path:
    """Adapters with random weights, as training saves them."""
    made = load_reward_model(backbone, new_head="step")
    model = add_adapters(made.model, 2, name or str(backbone), seed=0)
    torch.manual_seed(1)
    for parameter_name, parameter in model.named_parameters():
        if (parameter.requires_grad and "lora_B" in parameter_name) or "score" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    provenance = origin("backbone", name or str(backbone), folder)
    CheckpointConfig(head="step", provenance=provenance).save(folder)
    return folder


@pytest.fixture
def moved(backbone: Path, tmp_path: Path) -> Path:
    """A folder with a backbone, and adapters that were trained on it."""
    shutil.copytree(backbone, tmp_path / "there/backbone")
    adapted(tmp_path / "there/backbone", tmp_path / "there/lora")
    return tmp_path / "there"


def test_adapters_find_their_backbone_from_any_folder(
    moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(moved)
    relative = adapted(Path("backbone"), Path("relative"), "backbone")
    expected = head_of(relative)
    (moved / "elsewhere").mkdir()
    monkeypatch.chdir(moved / "elsewhere")
    assert torch.equal(head_of(moved / "relative"), expected)
    shutil.move(moved, tmp_path / "moved together")
    monkeypatch.chdir(tmp_path)
    assert torch.equal(head_of(tmp_path / "moved together/relative"), expected)
    shutil.move(tmp_path / "moved together/relative", tmp_path / "alone")
    with pytest.raises(
        ValueError, match=r"adapters in .*alone belong to the backbone .*backbone, which is not there; re"
    ):
        load_reward_model(tmp_path / "alone")
    path = tmp_path / "alone/adapter_config.json"  # as the message says
    named = json.loads(path.read_text()) | {"base_model_name_or_path": str(tmp_path / "moved together/backbone")}
    path.write_text(json.dumps(named))
    assert torch.equal(head_of(tmp_path / "alone"), expected)


def test_adapters_count_as_their_backbone(moved: Path, backbone: Path) -> None:
    counted = parameter_count(moved / "lora")
    assert counted == parameter_count(backbone) == sum(p.numel() for p in load_policy(backbone).model.parameters())


def test_another_backbone_in_the_same_place_is_refused(moved: Path, tiny_backbone: Folders) -> None:
    """Of the same family and widths, or of the same family with one changed weight."""
    load_reward_model(moved / "lora")
    weights = moved / "backbone/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(
        ValueError, match=r"backbone .*backbone, which has other files than those that they were trained"
    ):
        load_reward_model(moved / "lora")
    shutil.rmtree(moved / "backbone")
    shutil.copytree(tiny_backbone("qwen3_vl"), moved / "backbone")
    with pytest.raises(ValueError, match="has other files than those"):
        load_reward_model(moved / "lora")


@pytest.mark.parametrize("family", BACKBONES)
def test_every_linear_layer_of_the_text_layers_has_an_adapter(tiny_backbone: Folders, family: str) -> None:
    model = load_reward_model(tiny_backbone(family), new_head="step").model
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    of_text = {name for name in linear if "language_model.layers." in name}
    adapted_model = add_adapters(model, 2, "x", seed=0)
    found = {name.removesuffix(".lora_A.default") for name, _ in adapted_model.named_modules() if "lora_A.d" in name}
    assert {name.removeprefix("base_model.model.") for name in found} == of_text
    assert len(of_text) >= 14


def test_linear_attention_is_adapted_saved_and_merged(tiny_backbone: Folders, tmp_path: Path) -> None:
    backbone = tiny_backbone("qwen3_5")
    before = load_reward_model(backbone, new_head="step").model.state_dict()
    after = load_reward_model(adapted(backbone, tmp_path / "lora")).model.state_dict()
    changed = {name.split(".")[-2] for name in before if not torch.equal(before[name], after[name])}
    assert {"in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "out_proj", "q_proj", "down_proj"} <= changed
