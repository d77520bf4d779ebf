"""Impossible training configs are refused before a run is opened."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.learnt import load_trees
from train import prm
from train.reward.checks import check
from train.reward.config import LossConfig, PrmConfig, RowsConfig
from train.reward.data import check_counts, check_pairs, has_counts, has_pairs
from vlprm.model.attention import Attention
from vlprm.model.checkpoint_config import load_checkpoint_config
from vlprm.model.lora import add_adapters
from vlprm.model.reward_loading import load_reward_model
from vlprm.runs.config import parse
from vlprm.schema import Problem


def test_pairs_that_are_not_there_are_refused(dataset: Path) -> None:
    trees = load_trees(dataset, RowsConfig())
    of_trees, of_chains = (
        [has_pairs(example, LossConfig()) for example in examples] for examples in (trees, [tree[:1] for tree in trees])
    )
    assert (True, True) in of_trees
    assert {*of_chains} == {(False, False)}
    check_pairs((True, True), LossConfig(siblings=1.0, candidates=1.0))
    with pytest.raises(ValueError, match=r"right and wrong solutions, .* loss.candidates compares; set it to 0, or"):
        check_pairs((False, True), LossConfig(candidates=1.0))
    with pytest.raises(ValueError, match=r"a right and a wrong step .* loss.siblings compares; set it to 0, or"):
        check_pairs((True, False), LossConfig(siblings=1.0))


def test_a_value_without_rollouts_is_refused(dataset: Path) -> None:
    tree = load_trees(dataset, RowsConfig())[0]
    assert has_counts(tree)
    judged = [replace(p, labels=tuple(replace(la, mc_correct=0, mc_valid=0) for la in p.labels)) for p in tree]
    assert not has_counts(judged)
    check_counts(False, LossConfig())
    with pytest.raises(ValueError, match=r"no labelled step has rollouts, which loss.value learns from; set it"):
        check_counts(False, LossConfig(value=1.0))


CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "pairs of paths": (
        {"rows": RowsConfig(of="paths"), "loss": LossConfig(siblings=1.0, candidates=1.0)},
        "has no pairs for loss.siblings and loss.candidates; set rows.of: trees",
    ),
    "pairs of steps apart": (
        {"rows": RowsConfig(history="removed"), "loss": LossConfig(siblings=1.0)},
        "leaves each step alone, and loss.siblings reads several; set rows.history: kept",
    ),
    "critiques without words": (
        {"rows": RowsConfig(words="removed"), "loss": LossConfig(critique=1.0)},
        "would name what they do not say; set rows.words: kept",
    ),
    "vocabulary of a step head": (
        {"loss": LossConfig(vocabulary=True)},
        "so the loss has no bound; set loss.vocabulary: false, or head: verdict",
    ),
    "vocabulary and counts": (
        {"head": "verdict", "loss": LossConfig(vocabulary=True, labels="counts")},
        "set loss.vocabulary: false, or loss.labels to soft or hard",
    ),
    "verdicts of a step head": ({"verdicts": ("Yes", "No")}, "Yes and No have no effect; leave out verdicts"),
    "value of a verdict head": (
        {"head": "verdict", "loss": LossConfig(value=1.0)},
        "has no output for the value; set head: step, or leave out loss.value",
    ),
    "value beside counts": ({"loss": LossConfig(value=1.0, labels="counts")}, "what loss.value teaches the value; set"),
    "concentration of nothing": (
        {"loss": LossConfig(concentration="learned")},
        "is learned from the counts of rollouts; set loss.labels: counts or loss.value: 1, or give",
    ),
    "evidence without a learned concentration": ({"loss": LossConfig(evidence=0.1)}, "set loss.concentration: learned"),
    "surprise of a verdict head": ({"head": "verdict", "surprise": True}, "set surprise: false, or head: step"),
    "labels of an implicit head": ({"head": "implicit"}, "learns from the outcomes of whole .*; set loss.labels: outc"),
    "surprise of an implicit head": (
        {"head": "implicit", "surprise": True, "loss": LossConfig(labels="outcome")},
        "an implicit head cannot read surprise; set surprise: false",
    ),
    "lookback of a verdict head": ({"head": "verdict", "lookback": True}, "set lookback: false, or head: step"),
    "outcomes and labels of steps": (
        {"loss": LossConfig(labels="outcome", ranks=1.0, threshold=0.5)},
        "reads no labels of steps, which loss.threshold and loss.ranks would need",
    ),
    "outcomes of parts": (
        {"loss": LossConfig(labels="outcome"), "rows": RowsConfig(after_first_error="stop")},
        "is about whole solutions, which rows.after_first_error would cut",
    ),
    "pairs of log-ratios": (
        {"head": "implicit", "loss": LossConfig(labels="outcome", candidates=1.0)},
        "compares mean rewards of steps, which an implicit head adds up; set it to 0",
    ),
    "beta of a step head": ({"loss": LossConfig(beta=1.0)}, "has no log-ratios for loss.beta; leave it out, or set"),
    "frozen text with adapters": ({"lora_rank": 4, "freeze": ("text",)}, "take text out of freeze, or set lora_rank"),
    "flash for trees": ({"attention": Attention(text="flash"), "bfloat16": True}, "as with rows.of: trees; set"),
    "flash for verdicts": (
        {"attention": Attention(text="flash"), "rows": RowsConfig(of="paths"), "head": "verdict", "bfloat16": True},
        "as with head: verdict; set attention.text: tree",
    ),
    "flash in float32": ({"attention": Attention(vision="flash")}, "does not support float32; set bfloat16: true"),
    "too few pixels": ({"max_pixels": 100}, "min_pixels 1024 is above max_pixels 100; lower min_pixels"),
    "rate of a frozen tower": (
        {"vision_learning_rate": 1e-6},
        "because freeze lists vision; leave it out, or",
    ),
    "rate of a tower beside adapters": (
        {"vision_learning_rate": 1e-6, "lora_rank": 4, "freeze": ()},
        "because lora_rank trains the text layers alone; leave it out",
    ),
    "few bits without adapters": ({"bits": 4}, "set lora_rank, or bits: 16"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_what_contradicts_itself_is_refused_before_a_run_is_opened(case: str, dataset: Path, tmp_path: Path) -> None:
    changes, message = CONTRADICTIONS[case]
    with pytest.raises(ValueError, match=message):
        prm.main(PrmConfig(dataset, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("recipe", sorted(Path("configs").glob("*/*.yaml")))
def test_no_recipe_contradicts_itself(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check uses a backbone that supports everything, since those of the Hub are not available."""
    monkeypatch.setattr("vlprm.model.attention.find_spec", lambda name: name)  # as if flash-attn were installed
    if f"-m train.prm --config {recipe}" in recipe.read_text():
        check(replace(parse(PrmConfig, ["--config", str(recipe)]), backbone="builtin/backbone"))


@pytest.mark.parametrize("family", ["gemma3", "qwen3_5"])
@pytest.mark.parametrize(
    ("asked", "instead"),
    [({"head": "verdict"}, "head: step"), ({"loss": LossConfig(critique=1.0)}, "loss.critique: 0")],
)
def test_what_is_asked_on_a_branch_is_refused_where_none_can_be_read(
    tiny_backbone: Callable[[str], Path], family: str, asked: dict[str, Any], instead: str
) -> None:
    rows = RowsConfig(of="paths")
    config = PrmConfig(Path("d"), Path("r"), str(tiny_backbone(family)), rows=rows, **asked)
    with pytest.raises(ValueError, match=f"is a branch, which .* cannot read: its? .*; set {instead}"):
        check(config)
    check(replace(config, backbone=str(tiny_backbone("qwen3_vl"))))


@pytest.mark.parametrize("tracker", ["wandb", "trackio", "tensorboard"])
def test_a_tracker_that_is_not_installed_is_named_before_a_run_is_opened(
    tracker: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in (tracker, "tensorboardX"):
        monkeypatch.setitem(sys.modules, package, None)  # as where it is not installed
    with pytest.raises(ValueError, match=f"report_to: {tracker} needs the package {tracker}; pip install it, or leave"):
        prm.main(PrmConfig(dataset, tmp_path / "run", report_to=tracker))  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_metrics_go_to_tensorboard_too(dataset: Path, backbone: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows = RowsConfig(batch_tokens=2000)
    config = PrmConfig(dataset, tmp_path / "run", str(backbone), rows=rows, held_out=0.2, report_to="tensorboard")
    prm.main(config)
    (events,) = (tmp_path / "run").rglob("events.out.tfevents.*")
    shown = EventAccumulator(str(events)).Reload()
    assert "eval/step_auroc" in shown.Tags()["scalars"]


def test_what_few_bits_and_adapters_need_is_named(backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("bitsandbytes", "peft"):
        monkeypatch.setitem(sys.modules, package, None)
    for bits in (4, 8):
        with pytest.raises(ValueError, match=rf"loading in {bits} bits needs bitsandbytes; pip install 'vlprm\[quan"):
            load_reward_model(backbone, new_head="step", bits=bits)  # type: ignore[arg-type]
    model = load_reward_model(backbone, new_head="step").model
    with pytest.raises(ValueError, match=r"adapters need peft; pip install 'vlprm\[lora\]'"):
        add_adapters(model, 4, str(backbone), seed=0)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_pixel_limits_are_those_of_the_checkpoint(
    tiny_backbone: Any, dataset: Path, tmp_path: Path, problems: list[Problem], family: str
) -> None:
    config = PrmConfig(dataset, tmp_path / "run", str(tiny_backbone(family)), max_pixels=64 * 64, held_out=0.2)
    made, plain = prm.new_model(config), prm.new_model(replace(config, max_pixels=None))
    few, many = (checkpoint.inputs.row(problems[0], []).image_mask.count(True) for checkpoint in (made, plain))
    assert 0 < few < many
    prm.main(config)
    assert load_checkpoint_config(tmp_path / "run").max_pixels == 64 * 64
    assert load_checkpoint_config(tmp_path / "run").min_pixels == plain.config.min_pixels


def test_pixel_limits_are_refused_where_nothing_takes_them(tiny_backbone: Any, dataset: Path, tmp_path: Path) -> None:
    config = PrmConfig(dataset, tmp_path / "run", str(tiny_backbone("internvl")), max_pixels=4096)
    with pytest.raises(ValueError, match="resizes every image to fixed sizes; leave out min_pixels and"):
        prm.main(config)
