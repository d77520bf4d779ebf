"""The implicit head: log-ratios to a reference, from the real classes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import executed, solved
from vlprm.model.checkpoint_config import CheckpointConfig, load_checkpoint_config
from vlprm.model.loading import Checkpoint, load_policy
from vlprm.model.lora import add_adapters, origin
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.schema import Problem, Step
from vlprm.scoring.served import ServedScorer
from vlprm.scoring.tree import score_steps
from vlprm.serving.config import ServerConfig
from vlprm.steps import parse_step
from vlprm.tasks import TASKS

Solutions = list[tuple[Problem, list[Step]]]


def moved(model: Any) -> None:
    """Change the weights of the text layers, and not those of the reference."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.model.language_model.parameters():
            weight += 0.05 * torch.randn_like(weight)


def asked() -> Solutions:
    """Branches, a zoom, and a solution that is the beginning of another."""
    problem, other = TASKS["fine_print"].problem("train", 3), TASKS["chart"].problem("train", 3)
    steps = [executed(step) for step in solved(problem)]
    wrong = parse_step("[reasoning] 1 + 1 = 3")
    return [(problem, steps), (problem, [*steps[:1], wrong]), (problem, steps[:2]), (other, solved(other))]


@pytest.fixture
def trained(backbone: Path, tmp_path: Path) -> Path:
    """A folder as training writes one."""
    made = load_reward_model(backbone, new_head="implicit")
    moved(made.model)
    provenance = {"reference": str(backbone), **origin("reference", str(backbone), tmp_path / "prm")}
    save_reward_model(made, tmp_path / "prm", replace(made.config, beta=0.3, provenance=provenance))
    return tmp_path / "prm"


def log_likelihoods(policy: Checkpoint, problem: Problem, steps: list[Step]) -> list[float]:
    """Of the ids that the policy wrote in each step, by the plain class."""
    row = policy.inputs.row(problem, steps)
    log_p = policy.model(**policy.inputs.batch([row])).logits[0].double().log_softmax(-1)
    sums = [0.0] * len(steps)
    for at, (token, step) in enumerate(zip(row.ids, row.written_in, strict=True)):
        if step >= 0:
            sums[step] += log_p[at - 1, token].item()
    return sums


def test_rewards_are_logistics_of_log_ratios_so_far(trained: Path, backbone: Path) -> None:
    """Computed from both folders with transformers' class, one solution at a time."""
    policy, reference = load_policy(trained), load_policy(backbone)
    for (problem, steps), scores in zip(asked(), score_steps(load_reward_model(trained), asked()), strict=True):
        own, others = (log_likelihoods(one, problem, steps) for one in (policy, reference))
        ratios = torch.tensor(own) - torch.tensor(others)
        assert [s.log_odds for s in scores if s] == pytest.approx((0.3 * ratios).tolist(), abs=1e-3)
        assert [s.correct for s in scores if s] == pytest.approx((0.3 * ratios).cumsum(0).sigmoid().tolist(), abs=1e-3)
        assert len({round(s.correct, 3) for s in scores if s}) > 1


def test_without_training_every_ratio_is_zero(backbone: Path) -> None:
    scores = [s for of in score_steps(load_reward_model(backbone, new_head="implicit"), asked()) for s in of if s]
    assert len(scores) > 8
    assert {(s.log_odds, s.correct) for s in scores} == {(0.0, 0.5)}


def test_a_folder_holds_the_model_alone_and_names_its_reference(trained: Path, backbone: Path, tmp_path: Path) -> None:
    names = set(load_file(trained / "model.safetensors"))
    assert names == set(load_file(backbone / "model.safetensors"))
    made = json.loads((trained / "config.json").read_text())["architectures"]
    assert made == [type(load_policy(backbone).model).__name__]
    shutil.copytree(backbone, tmp_path / "reference")
    declared = load_checkpoint_config(trained)
    known = {"reference": "gone", **origin("reference", str(tmp_path / "reference"), trained)}
    replace(declared, provenance=known).save(trained)
    assert score_steps(load_reward_model(trained), asked())  # by its path from the folder
    data = bytearray((tmp_path / "reference/model.safetensors").read_bytes())
    data[-2] ^= 1
    (tmp_path / "reference/model.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="compared with the reference gone, which has other files than those"):
        load_reward_model(trained)
    shutil.rmtree(tmp_path / "reference")
    with pytest.raises(ValueError, match=r"which is not there; restore it, or .* \"reference\" in the provenance of"):
        load_reward_model(trained)


def test_adapters_are_measured_against_the_model_without_them(backbone: Path, tmp_path: Path) -> None:
    """In place, as in training, and merged beside a copy of the backbone, as in scoring."""
    made = load_reward_model(backbone, new_head="implicit", to_adapt=True)
    adapted = add_adapters(made.model, 2, str(backbone), seed=0)
    torch.manual_seed(0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    adapted.save_pretrained(tmp_path)
    provenance = {"reference": str(backbone), **origin("backbone", str(backbone), tmp_path)}
    CheckpointConfig(head="implicit", provenance=provenance).save(tmp_path)
    loaded = score_steps(load_reward_model(tmp_path), asked())
    in_place = score_steps(Checkpoint(adapted.get_base_model(), made.inputs), asked())
    expected = [s.log_odds for of in loaded for s in of if s]
    assert [s.log_odds for of in in_place for s in of if s] == pytest.approx(expected, abs=1e-4)
    assert max(map(abs, expected)) > 1e-2


def test_heads_that_cannot_be_read_from_it_are_refused(trained: Path) -> None:
    for head in ("step", "verdict"):
        with pytest.raises(ValueError, match=f"has a trained implicit head, which head: {head} would drop"):
            load_reward_model(trained, new_head=head)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has an implicit head, whose rewards compare two models; remove the server"):
        ServedScorer(trained, ServerConfig(("http://localhost:1/v1",), "prm"))
