"""Policy learning: rounds that resume to the same weights, every recipe, monitors, and bad input."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from train import grpo
from train.policy import monitors
from train.policy.grpo_config import (
    ExcludeConfig,
    GateConfig,
    GrpoConfig,
    ModulateConfig,
    RolloutsConfig,
    TermConfig,
    ValidationConfig,
)
from train.policy.learner import Learner
from train.policy.measuring import Judges, rate
from train.policy.rounds import ProblemSource, Rated, Rollouts, fate, read_round, sample, usable
from train.policy.trajectories import SampledTurn, Trajectory
from vlprm.errors import UserError
from vlprm.model.loading import load_policy
from vlprm.model.reward_loading import load_reward_model
from vlprm.policy.local import LocalPolicy
from vlprm.policy.rollout import FAILURES, STOPS
from vlprm.runs.config import parse
from vlprm.schema import Problem, Step
from vlprm.scoring.local import LocalScorer
from vlprm.tasks import load_tasks

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.stem for path in (ROOT / "configs/policy").glob("*.yaml"))
ROLLOUTS = RolloutsConfig(problems=2, each=4, max_tokens=60, per_state=2)
NO_VALIDATION = ValidationConfig(problems=0)


def small(run: Path, **changes: Any) -> GrpoConfig:
    known = {
        "tasks": ("count_grid", "pattern"), "rounds": 3, "rollouts": ROLLOUTS, "learning_rate": 1e-3,
        "checkpoint_every": 2, "validation": NO_VALIDATION,
    }  # fmt: skip
    return GrpoConfig(run, **{**known, **changes})


@pytest.fixture(scope="module")
def prm(tmp_path_factory: pytest.TempPathFactory, backbone: Path) -> Path:
    """A tiny reward model with a random head."""
    folder = tmp_path_factory.mktemp("prm")
    checkpoint = load_reward_model(backbone, new_head="step")
    torch.manual_seed(0)
    torch.nn.init.normal_(checkpoint.model.score.weight, std=0.3)
    checkpoint.model.save_pretrained(folder)
    checkpoint.inputs.processor.save_pretrained(folder)
    checkpoint.config.save(folder)
    return folder


# --- a run


def ids_of(run: Path, rounds: int) -> list[Any]:
    return [
        [turn.ids for of in read_round(run, r) or [] for one in of for turn in one.trajectory.turns]
        for r in range(rounds)
    ]


def test_a_killed_run_reaches_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after a round was sampled, and after it was learnt; each time its stored rounds are learnt again."""
    whole, killed = small(tmp_path / "whole"), small(tmp_path / "killed")
    grpo.main(whole)
    learn, metrics = Learner.learn, grpo.write_lines

    def dies_before(self: Learner, *given: Any) -> Any:
        if self.round == 1:
            raise KeyboardInterrupt
        return learn(self, *given)

    def dies_after(folder: Path, lines: Any) -> None:
        if max(lines) == 2:
            raise KeyboardInterrupt
        metrics(folder, lines)

    for module, name, dies in ((Learner, "learn", dies_before), (grpo, "write_lines", dies_after)):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, name, dies)
            grpo.main(killed)
    grpo.main(killed)
    assert ids_of(whole.run, 3) == ids_of(killed.run, 3)
    one, other = (load_file(config.run / "policy/model.safetensors") for config in (whole, killed))
    assert all(torch.allclose(one[name].float(), other[name].float(), atol=1e-6) for name in one)
    start = load_policy("builtin/policy").model.state_dict()
    assert any(not torch.allclose(one[name].float(), start[name], atol=1e-5) for name in one)
    lines = [json.loads(line) for line in (killed.run / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [0, 1, 2, 3]
    assert lines[0]["learn_ratio"] == pytest.approx(1, abs=1e-4)
    assert lines[0]["learn_kl"] == pytest.approx(0, abs=1e-4)
    assert load_policy(killed.run / "policy").config.provenance["rounds"] == 3
    page = (killed.run / "report.html").read_text()
    assert "log-probability" in page and "Right answers" in page


def test_the_plan_shows_a_solution_with_its_advantages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grpo.main(small(tmp_path / "run", dry_run=True))
    said = capsys.readouterr().out
    assert "a round: 8 rollouts of 2 problems" in said
    marks = [line.strip() for line in said.partition("not trained -:")[2].splitlines() if line.startswith("    ")]
    assert marks[0] == "-"  # the question
    assert any(mark.startswith(("+", "-0")) for mark in marks)
    assert not (tmp_path / "run").exists()


# --- every recipe


@pytest.fixture(scope="module")
def world(prm: Path) -> dict[str, Any]:
    """A policy in training, and the rollouts of two problems with zooms and two without, which all recipes share."""
    config = small(Path("unused"), learning_rate=1e-5, policy=dataclasses.replace(GrpoConfig(Path()).policy, checkpoint="builtin/backbone"))
    learner = Learner(config, grpo.load_trained(config))
    found = {}
    for tasks in (("fine_print",), ("count_grid", "pattern")):
        asked = dataclasses.replace(config, tasks=tasks, rollouts=dataclasses.replace(ROLLOUTS, temperature=1.5))
        problems, _ = usable(ProblemSource(asked).ids(0), ProblemSource(asked).problem, learner.inputs)
        engine = LocalPolicy(learner.checkpoint)
        found[tasks[0]] = problems, asyncio.run(sample(engine, problems, asked, learner.inputs, 0))
    return {"learner": learner, "scorer": LocalScorer(load_reward_model(prm)), "rounds": found}


@pytest.mark.parametrize("name", RECIPES)
def test_a_round_of_every_recipe(name: str, world: dict[str, Any]) -> None:
    config = parse(GrpoConfig, ["--config", f"configs/policy/{name}.yaml", "--rollouts.per_state", "2"])
    learner: Learner = world["learner"]
    problems, rollouts = world["rounds"][config.tasks[0] if config.tasks == ("fine_print",) else "count_grid"]
    assert config.prm is None or config.prm.checkpoint == "runs/demo/prm"
    judges = Judges(
        LocalPolicy(learner.checkpoint), world["scorer"] if config.prm else None, load_tasks(config.tasks),
        learner.inputs, dataclasses.replace(config, rollouts=dataclasses.replace(config.rollouts, max_tokens=60)),
    )  # fmt: skip
    rated, refused = asyncio.run(rate(rollouts, problems, judges))
    assert not refused
    found = [a for of in rated for one in of if not one.excluded for a in one.advantages if a is not None]
    assert any(found)
    of_problem = {problem.id: problem for problem in problems}
    measures = learner.learn(rated, of_problem.__getitem__)
    assert measures["updates"] >= 1
    assert measures["grad_norm"] > 0
