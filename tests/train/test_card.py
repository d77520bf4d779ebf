"""The model card says what was measured, and how to read the rewards with transformers alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.tiny_backbones import BACKBONES
from train.reward.card import alone, model_card, without_paths
from train.reward.config import PrmConfig
from vlprm.images import png
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.families import FAMILIES
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.schema import Problem
from vlprm.scoring.tree import score
from vlprm.steps import split_steps

QUESTION, STEPS = "How many red cells are there?", "[perception] row 1: red none blue\n\n[answer] 1"
PROVENANCE = {"backbone": "/home/me/qwen", "command": "train", "data_hash": "d", "seed": 0}


@pytest.mark.parametrize("template", ["plain@1", "tagged_steps@1"])
@pytest.mark.parametrize("family", BACKBONES)
def test_the_rewards_are_those_of_transformers_alone(
    tiny_backbone: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, template: str
) -> None:
    """The card's program runs without our code, next to its folder."""
    made = load_reward_model(tiny_backbone(family), new_head="step")
    torch.manual_seed(0)
    torch.nn.init.normal_(made.model.score.weight)
    save_reward_model(made, tmp_path / "prm", replace(made.config, head="step", prompt_template=template))
    image = png(Image.effect_noise((300, 200), 90).convert("RGB"))
    (tmp_path / "grid.png").write_bytes(image)
    loaded = load_reward_model(tmp_path / "prm")
    (program,) = re.findall(r"```py\n(.*?)```", alone(loaded.config, loaded.inputs.family, tmp_path / "prm"), re.DOTALL)
    assert "vlprm" not in program
    monkeypatch.chdir(tmp_path)
    said: dict[str, list[float]] = {}
    exec(compile(program, "card", "exec"), said)
    problem = Problem("p", "t", QUESTION, (image,), None, "integer")
    assert said["rewards"] == pytest.approx(score(loaded, [(problem, split_steps(STEPS))])[0], abs=1e-5)


def test_a_card_has_the_number_of_steps_and_no_rates(tmp_path: Path) -> None:
    line = (
        '{"eval_step_auroc": 0.9331, "eval_step_count": 1234, "eval_steps_per_second": 7.1, "eval_found_reasoning": 1}'
    )
    (tmp_path / "metrics.jsonl").write_text(line + "\n")
    made = model_card(CheckpointConfig("step", provenance=PROVENANCE), FAMILIES["qwen3_vl"], None, "a: 1\n", tmp_path)
    assert "- step_auroc: 0.9331\n- step_count: 1234\n- found_reasoning: 1\n" in made
    assert "per_second" not in made
    assert "base_model" not in made
    hub = CheckpointConfig("step", provenance=PROVENANCE | {"backbone": "Qwen/Qwen3-VL-2B-Instruct"})
    assert "\nbase_model: Qwen/Qwen3-VL-2B-Instruct\n---" in model_card(hub, FAMILIES["qwen3_vl"], None, "", tmp_path)


def test_a_card_says_what_transformers_alone_cannot_read(tmp_path: Path) -> None:
    family = FAMILIES["qwen3_vl"]
    assert "(`surprise`), which" in alone(CheckpointConfig("step", provenance={"surprise": True}), family, tmp_path)
    assert "Answer + or -.` after each step" in alone(CheckpointConfig("verdict"), family, tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "`vlprm merge` makes a full model" in alone(CheckpointConfig("step"), family, tmp_path)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/home/me/a/d.parquet"], ["d.parquet"]),
        (["/home/me/a/d.parquet", "/home/me/a/e.parquet"], ["d.parquet", "e.parquet"]),
        (
            ["/me/a/labels/d.parquet", "/me/b/labels/d.parquet", "/me/a/e.parquet"],
            ["a/labels/d.parquet", "b/labels/d.parquet", "me/a/e.parquet"],
        ),
        (["/d.parquet", "/me/a/d.parquet", "/me/b/../b/d.parquet"], ["d.parquet", "a/d.parquet", "b/d.parquet"]),
    ],
)
def test_a_card_names_every_dataset_of_a_mixture_without_its_place(paths: list[str], names: list[str]) -> None:
    weights = {path: 0.5 * n for n, path in enumerate(paths[1:])}
    shown = without_paths(PrmConfig(Path(paths[0]), Path("/home/me/run"), also=weights))
    assert (shown.dataset, shown.run) == (Path(names[0]), Path("run"))
    assert shown.also == dict(zip(names[1:], weights.values(), strict=True))
