"""Each family of backbones, by a tiny random model of its real class with its real processor."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import executed, solved
from tests.tiny_backbones import BACKBONES, OUTSIDE
from vlprm.backbones import freeze, load_policy, part_of
from vlprm.engines import Request
from vlprm.engines.local import generate
from vlprm.families import FAMILIES
from vlprm.profile import Profile
from vlprm.reward_model import load_reward_model, save_reward_model
from vlprm.schema import Problem, Step
from vlprm.scoring import score
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
    """Only the head is new; saved and loaded, the scores are equal; and they depend on the image."""
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
    save_reward_model(made, tmp_path, made.profile)
    after = score(load_reward_model(tmp_path), asked)
    assert after == before
    blind = Problem("p", "t", problems[0].question, problems[1].images, "2", "integer")
    assert score(made, [(blind, solved(problems[0]))])[0] != pytest.approx(before[0], abs=1e-5)


@families
def test_scores_are_those_of_the_sequence_alone(tiny_backbone: Folders, problems: list[Problem], family: str) -> None:
    """In a padded batch with rows of other lengths and other numbers of images; and of a prefix alone."""
    made = load_reward_model(tiny_backbone(family), new_head="step")
    torch.nn.init.normal_(made.model.score.weight)
    asked = [(p, solved(p)) for p in problems[:3]] + [zooming()]
    together = score(made, asked)
    for (problem, steps), scores in zip(asked, together, strict=True):
        assert score(made, [(problem, steps)])[0] == pytest.approx(scores, abs=1e-5)
        assert score(made, [(problem, steps[:1])])[0] == pytest.approx(scores[:1], abs=1e-5)


@families
def test_a_policy_of_the_family_writes(tiny_backbone: Folders, problems: list[Problem], family: str) -> None:
    """With a cache, and without: the likeliest next id is the same."""
    policy = load_policy(tiny_backbone(family))
    if family == "qwen3_5":
        with pytest.raises(ValueError, match="qwen3_5 cannot continue one prefix several times; serve the policy"):
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
    Profile().save(folder)
    with pytest.raises(ValueError, match=r"no family 'llava' of backbones; .* declare it in vlprm\.json"):
        load_policy(folder)
    (folder / "vlprm.json").write_text('{"family": {"positions": "spiral"}}')
    with pytest.raises(ValueError, match="is not the profile of a checkpoint"):
        load_policy(folder)
