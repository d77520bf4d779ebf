"""One gradient, however a round is divided into batches and processes; two processes (gloo, CPU) reach the weights of
one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file

from tests.train.rollouts import grid_problem, tree_of
from tests.train.test_grpo import NO_VALIDATION
from tests.train.two_processes import in_two, one_thread
from train import grpo
from train.policy.config import PolicyLossConfig
from train.policy.grpo_config import GrpoConfig, RolloutsConfig, ValidationConfig
from train.policy.learner import Learner
from train.policy.rounds import Rated, Rollouts, read_round
from vlprm.errors import UserError
from vlprm.model.loading import load_policy
from vlprm.schema import Problem
from vlprm.serving.config import ModelConfig

PROBLEMS = {f"p{i}": dataclasses.replace(grid_problem(), id=f"p{i}") for i in range(5)}


def hand_made(learner: Learner) -> Rollouts:
    """A round of five problems with different numbers of solutions, crops among them; one pulls nowhere."""
    found = []
    for n, problem in enumerate(PROBLEMS.values()):
        paths = tree_of(learner.inputs, problem)[: 6 - n]
        pull = [0.0 if n == 3 else (-1.0) ** i * (1 + 0.3 * n) for i in range(len(paths))]
        found.append([
            Rated(one, 1.0, advantages=(a,) * len(one.steps)) for one, a in zip(paths, pull, strict=True)
        ])  # fmt: skip
    return found


def gradient(policy: Path, batch_tokens: int, backwards: bool = False) -> dict[str, torch.Tensor]:
    """The summed gradient of the hand-made round, of which no step is taken."""
    loss = PolicyLossConfig("ppo", per="token", kl=0.1)
    config = GrpoConfig(
        Path("unused"), policy=ModelConfig(str(policy)), batch_tokens=batch_tokens, loss=loss, learning_rate=1e-3
    )
    learner = Learner(config, grpo.load_trained(config))
    found: dict[str, torch.Tensor] = {}
    learner.optimizer.register_step_pre_hook(
        lambda *_: found.update({name: p.grad.clone() for name, p in learner.trained.items() if p.grad is not None})
    )
    rollouts = hand_made(learner)
    problem: Callable[[str], Problem] = PROBLEMS.__getitem__
    learner.learn(rollouts[::-1] if backwards else rollouts, problem)
    return found


def refuse_difference(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(expected)
    scale = max(float(g.abs().max()) for g in expected.values())
    assert scale > 1e-4
    assert max(float((found[name] - expected[name]).abs().max()) for name in expected) < 1e-5 * scale


def test_the_gradient_does_not_depend_on_the_batches(tiny_backbone: Callable[[str], Path]) -> None:
    policy = tiny_backbone("qwen2_5_vl")
    expected = gradient(policy, 1_000_000)
    refuse_difference(expected, gradient(policy, 1))
    refuse_difference(expected, gradient(policy, 2500, backwards=True))


# --- two processes


class Killed(Exception):
    """The end of a run before its second round is learnt."""


def run_config(run: Path) -> GrpoConfig:
    rollouts = RolloutsConfig(problems=3, each=4, max_tokens=50)
    return GrpoConfig(
        run, policy=ModelConfig("builtin/policy", device="cpu"), tasks=("count_grid", "fine_print"), rounds=2,
        rollouts=rollouts, updates=2, learning_rate=2e-5, checkpoint_every=1,
        validation=ValidationConfig(problems=3, every=1),
    )  # fmt: skip


def in_each(process: PartialState, policy: Path, folder: Path) -> None:
    """The gradient of the hand-made round, and a run that is killed and goes on."""
    found = gradient(policy, 2500)
    if process.is_main_process:
        save_file(found, folder / "gradient.safetensors")
    learn = Learner.learn

    def dies(self: Learner, *given: Any) -> Any:
        if self.round == 1:
            raise Killed
        return learn(self, *given)

    Learner.learn = dies  # type: ignore[method-assign]
    config = run_config(folder / "two")
    with pytest.raises(Killed):
        grpo.main(config)
    process.wait_for_everyone()
    Learner.learn = learn  # type: ignore[method-assign]
    grpo.main(config)


@pytest.mark.slow
def test_two_processes_reach_the_weights_of_one(tiny_backbone: Callable[[str], Path], tmp_path: Path) -> None:
    policy = tiny_backbone("qwen2_5_vl")
    in_two(in_each, policy, tmp_path)
    one, two = run_config(tmp_path / "one").run, tmp_path / "two"
    with one_thread():
        refuse_difference(gradient(policy, 1_000_000), load_file(tmp_path / "gradient.safetensors"))
        grpo.main(run_config(one))
    assert read_ids(one) == read_ids(two)
    expected, found = (load_file(run / "policy/model.safetensors") for run in (one, two))
    start = load_policy("builtin/policy").model.state_dict()
    assert max(float((expected[name] - start[name]).abs().max()) for name in expected) > 2e-5
    assert max(float((found[name] - expected[name]).abs().max()) for name in expected) < 1e-6
    before, after = grpo.metric_lines(one), grpo.metric_lines(two)
    for name in ("validation_right", "validation_steps", "right", "learn_updates"):
        assert [line.get(name) for line in before.values()] == [line.get(name) for line in after.values()]


def read_ids(run: Path) -> list[Any]:
    rounds = [read_round(run, r) or [] for r in range(2)]
    return [[turn.ids for of in one for path in of for turn in path.trajectory.turns] for one in rounds]


def test_a_launch_that_would_shard_the_policy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match=r"not shard it with FSDP; launch it with configs/accelerate/multi_gpu\.yaml"):
        grpo.main(dataclasses.replace(run_config(tmp_path / "run"), validation=NO_VALIDATION))
