"""Each family of backbones, with a tiny random model of its real class and its real processor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import transformers as hf

from tests.conftest import executed, solved
from tests.tiny_backbones import BACKBONES, OUTSIDE
from vlprm.model.attention import Attention
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.families import FAMILIES
from vlprm.model.loading import freeze, load_inputs, load_policy, part_of
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.model.tree_attention import FLASH, TREE
from vlprm.policy import Request
from vlprm.policy.local import generate
from vlprm.schema import Problem, Step
from vlprm.scoring.tree import score
from vlprm.tasks import TASKS

Folders = Callable[[str], Path]
families = pytest.mark.parametrize("family", [*BACKBONES, *OUTSIDE])


def zooming() -> tuple[Problem, list[Step]]:
    problem = TASKS["fine_print"].problem("train", 3)
    steps = [executed(step) for step in solved(problem)]
    assert any(step.region for step in steps)
    return problem, steps


def test_every_known_family_is_proved() -> None:
    assert set(BACKBONES) == set(FAMILIES)


@families
@pytest.mark.parametrize("head", ["step", "verdict"])
def test_a_reward_model_keeps_all_weights_and_its_scores(
    tiny_backbone: Folders, tmp_path: Path, problems: list[Problem], family: str, head: str
) -> None:
    """Only the head is new. Scores are equal after saving and loading, and depend on the image."""
    plain = load_policy(tiny_backbone(family)).model.state_dict()
    made = load_reward_model(tiny_backbone(family), new_head=head)  # type: ignore[arg-type]
    assert set(made.model.state_dict()) - set(plain) == ({"score.weight"} if head == "step" else set())
    assert all(torch.equal(plain[name], made.model.state_dict()[name]) for name in plain)
    if head == "step":
        torch.manual_seed(0)
        torch.nn.init.normal_(made.model.score.weight, std=0.1)
    zoomed, steps = zooming()
    asked = [(p, solved(p)) for p in problems[:3]] + [(zoomed, steps)]
    before = score(made, asked)
    save_reward_model(made, tmp_path, made.config)
    after = score(load_reward_model(tmp_path), asked)
    assert after == before
    blind = Problem("p", "t", problems[0].question, problems[1].images, "2", "integer")
    assert score(made, [(blind, solved(problems[0]))])[0] != pytest.approx(before[0], abs=1e-5)


@families
@pytest.mark.parametrize("head", ["step", "verdict"])
def test_transformers_own_classes_load_what_is_saved(
    tiny_backbone: Folders, tmp_path: Path, problems: list[Problem], family: str, head: str
) -> None:
    """The generating class, and the token classification class if there is one, load all weights and give equal
    scores."""
    made = load_reward_model(tiny_backbone(family), new_head=head)  # type: ignore[arg-type]
    if head == "step":
        torch.nn.init.normal_(made.model.score.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    save_reward_model(made, tmp_path, CheckpointConfig(head=head))  # type: ignore[arg-type]
    own, report = hf.AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    weights = made.model.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in own.state_dict().items())
    classifiers = hf.AutoModelForTokenClassification
    assert family != "qwen3_5" or type(own.config) in classifiers._model_mapping
    if head == "step" and type(own.config) in classifiers._model_mapping:
        own, report = classifiers.from_pretrained(tmp_path, output_loading_info=True)
        assert not report["missing_keys"]
        row = made.inputs.row(problems[0], solved(problems[0]))
        logits = own(**made.inputs.batch([row])).logits[0, list(row.step_ends)]
        (expected,) = score(made, [(problems[0], solved(problems[0]))])
        assert logits.softmax(-1)[:, 0].tolist() == pytest.approx(expected, abs=1e-5)


@families
def test_scores_are_those_of_the_sequence_alone(tiny_backbone: Folders, problems: list[Problem], family: str) -> None:
    """The padded batch has rows of other lengths and other numbers of images; a prefix alone has the same scores
    too."""
    made = load_reward_model(tiny_backbone(family), new_head="step")
    torch.nn.init.normal_(made.model.score.weight, generator=torch.Generator().manual_seed(0))
    asked = [(p, solved(p)) for p in problems[:3]] + [zooming()]
    together = score(made, asked)
    for (problem, steps), scores in zip(asked, together, strict=True):
        assert score(made, [(problem, steps)])[0] == pytest.approx(scores, abs=1e-5)
        assert score(made, [(problem, steps[:1])])[0] == pytest.approx(scores[:1], abs=1e-5)


@families
def test_a_policy_of_the_family_writes(tiny_backbone: Folders, problems: list[Problem], family: str) -> None:
    """The most likely next id is the same with a KV cache and without."""
    policy = load_policy(tiny_backbone(family))
    if family == "qwen3_5":
        with pytest.raises(
            ValueError, match="qwen3_5 cannot sample several continuations of one prefix here; serve the policy"
        ):
            generate(policy, [Request(problems[0], (), 1, "k", 1)])
        return
    (answer,) = generate(policy, [Request(problems[0], (), 1, "k", 1, 0.0, 6)])[0]
    ids = policy.inputs.row(problems[0], []).ids
    logits = policy.model(**policy.inputs.batch([policy.inputs.row(problems[0], [])])).logits[0, -1]
    logits[list(policy.inputs.banned_ids)] = -torch.inf
    assert policy.inputs.tokenizer.decode([int(logits.argmax())])[:1] == answer.text[:1]
    assert policy.inputs.image_token_id in ids


@families
def test_parts_are_frozen_by_their_names(tiny_backbone: Folders, family: str) -> None:
    checkpoint = load_reward_model(tiny_backbone(family), new_head="step")
    model, known = checkpoint.model, checkpoint.inputs.family
    parts = [part_of(name, known) for name, _ in model.named_parameters()]
    assert {"vision", "projector", "text", None} == set(parts)
    freeze(model, known, ("vision", "projector"))
    trained = {part_of(name, known) for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"text", None}
    plain = load_policy(tiny_backbone(family)).model
    with pytest.raises(ValueError, match="freeze: vision, projector, text leaves nothing to train; remove one of them"):
        freeze(plain, known, ("vision", "projector", "text"))


@pytest.mark.parametrize("family", [name for name in BACKBONES if FAMILIES[name].cannot_pack])
def test_trees_are_refused_where_they_cannot_be_read(
    tiny_backbone: Folders, problems: list[Problem], family: str
) -> None:
    inputs = load_policy(tiny_backbone(family)).inputs
    steps = solved(problems[0])[:2]
    with pytest.raises(ValueError, match=r"cannot read a tree in one sequence: .*; use paths"):
        inputs.tree(problems[0], steps, [-1, -1])
    assert inputs.tree(problems[0], steps, [-1, 0]).ids == inputs.row(problems[0], steps).ids


def test_a_family_that_is_neither_known_nor_declared_is_named(tiny_backbone: Folders, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_backbone("llava"), tmp_path / "llava")
    CheckpointConfig().save(folder)
    with pytest.raises(ValueError, match=r"unknown family of backbones 'llava'; .* declare it in vlprm\.json"):
        load_policy(folder)
    (folder / "vlprm.json").write_text('{"family": {"positions": "spiral"}}')
    with pytest.raises(ValueError, match="does not describe a checkpoint"):
        load_policy(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_policy_is_asked_for_no_box_whose_dialect_nobody_knows(
    tiny_backbone: Folders, tmp_path: Path, family: str
) -> None:
    """A folder without vlprm.json is one of the Hub, whose prompt asks for zooms. Its reward model never zooms."""
    shutil.copytree(tiny_backbone(family), folder := tmp_path / "b")
    (folder / "vlprm.json").unlink()
    if FAMILIES[family].dialect != "none":
        assert load_inputs(folder).config.dialect == FAMILIES[family].dialect
        return
    with pytest.raises(ValueError, match=r"asks for zooms without a declared box dialect; write .*vlprm\.json"):
        load_policy(folder)
    made = load_reward_model(folder, new_head="step")
    save_reward_model(made, tmp_path / "prm", replace(made.config, head="step"))
    assert load_reward_model(tmp_path / "prm").config.dialect == "none"
    CheckpointConfig(dialect="none").save(folder)  # by a template that asks for none
    assert load_policy(folder).config.dialect == "none"


def test_code_of_a_checkpoint_is_never_run(tmp_path: Path, tiny_backbone: Folders) -> None:
    """If transformers knows the model, its own class is used."""
    marks = {"auto_map": {"AutoConfig": "own.Config", "AutoModelForImageTextToText": "own.Model"}}
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    for name, model_type in (("known", "qwen2_5_vl"), ("unknown", "internvl_chat")):
        shutil.copytree(tiny_backbone("qwen2_5_vl"), folder := tmp_path / name)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **marks, "model_type": model_type}))
        (folder / "own.py").write_text(code)
    assert type(load_policy(tmp_path / "known").model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    with pytest.raises(ValueError, match=r"^\S+unknown needs its own code \(auto_map in config\.json\)"):
        load_policy(tmp_path / "unknown")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_parts_attend_by_what_is_asked_for(tiny_backbone: Folders, problems: list[Problem], family: str) -> None:
    folder, asked = tiny_backbone(family), [(problems[0], solved(problems[0]))]
    plain = load_reward_model(folder, new_head="verdict")
    other = load_reward_model(folder, new_head="verdict", attention=Attention(vision="eager"))
    assert other.model.config.vision_config._attn_implementation == "eager"
    assert other.model.config.get_text_config()._attn_implementation == TREE
    assert score(other, asked)[0] == pytest.approx(score(plain, asked)[0], abs=1e-5)


@pytest.mark.skipif(find_spec("flash_attn") is not None, reason="flash-attn is installed")
@pytest.mark.parametrize("attention", [Attention(vision="flash"), Attention(text="flash")])
def test_flash_attention_is_refused_where_it_is_not_installed(tiny_backbone: Folders, attention: Attention) -> None:
    with pytest.raises(ValueError, match=r"flash-attn is not installed; pip install 'vlprm\[flash\]', or do not"):
        load_reward_model(tiny_backbone("qwen2_5_vl"), new_head="step", attention=attention)


def test_flash_attention_is_refused_for_rows_that_branch(tiny_backbone: Folders, problems: list[Problem]) -> None:
    made = load_reward_model(tiny_backbone("qwen2_5_vl"), new_head="step")
    steps = solved(problems[0])[:2]
    batch = made.inputs.step_batch([made.inputs.tree(problems[0], steps, [-1, -1])])
    made.model.config.get_text_config()._attn_implementation = FLASH
    with pytest.raises(ValueError, match=r"flash-attn cannot read rows that branch; set attention\.text: tree"):
        made.model(**batch)
