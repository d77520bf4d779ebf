"""The policy loss on a packed tree is the sum of its paths' losses; nothing that the policy did not sample is
trained."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.train.rollouts import RED, TOLD, ZOOM, grid_problem, trajectory, tree_of
from train.loop.batches import model_inputs
from train.policy.batches import NOT_INPUTS, policy_batch, policy_row
from train.policy.config import PolicyLossConfig
from train.policy.losses import tree_policy_loss
from train.policy.model import load_packed_policy
from train.policy.trajectories import Trajectory, path_of
from vlprm.model.loading import Checkpoint
from vlprm.model.packing import Node, lay_out

CLIPS: tuple[Any, ...] = ("none", "ppo", "cispo", "sequence")
PER: tuple[Any, ...] = ("token", "path", "constant")
TEMPERATURE = 0.7
Change = Callable[[Trajectory], Trajectory]


@dataclass(frozen=True)
class Packed:
    """The batch of a row or more, and the log-probabilities of its trained tokens."""

    batch: dict[str, Any]
    log_p: Tensor


@dataclass(frozen=True)
class Alone:
    """One path in a row of its own: per trained token its place in the tree's row, log-probability now and when it was
    sampled, and advantage."""

    tokens: Tensor
    log_p: Tensor
    old: Tensor
    advantages: Tensor


def advantages_of(rollouts: Sequence[Trajectory]) -> list[list[float]]:
    rng = random.Random(0)
    return [[rng.uniform(-1, 1) for _ in rollout.steps] for rollout in rollouts]


def packed(checkpoint: Checkpoint, *groups: Sequence[Trajectory]) -> Packed:
    """Each group of rollouts is a row."""
    inputs, problem, rows = checkpoint.inputs, grid_problem(), []
    for rollouts in groups:
        paths = [path_of(rollout, problem, inputs) for rollout in rollouts]
        rows.append(policy_row(problem, paths, advantages_of(rollouts), inputs))
    batch = policy_batch(rows, inputs)
    seen = model_inputs(batch, NOT_INPUTS)
    output = checkpoint.model(**seen, temperature=TEMPERATURE, banned=inputs.banned_ids)
    return Packed({**batch, "reference": 0.9 * batch["sampled"]}, output.log_p)


def alone(checkpoint: Checkpoint, rollouts: Sequence[Trajectory]) -> list[Alone]:
    """Each path through the backbone's own forward, with its logits over the vocabulary."""
    inputs, problem, found = checkpoint.inputs, grid_problem(), []
    first = 0
    in_tree = policy_batch(
        [policy_row(problem, [path_of(r, problem, inputs) for r in rollouts], advantages_of(rollouts), inputs)], inputs
    )["token"]
    for rollout, advantage in zip(rollouts, advantages_of(rollouts), strict=True):
        path = path_of(rollout, problem, inputs)
        nodes = [Node(inputs.prompt(problem), -1), *(Node(part.segment, k) for k, part in enumerate(path.parts))]
        row = lay_out(nodes, inputs.positions)
        logits = checkpoint.model(**inputs.batch([row])).logits[0].float()
        logits[:, list(inputs.banned_ids)] = -torch.inf
        log_p = (logits / TEMPERATURE).log_softmax(-1)
        trained = [k for k, known in enumerate(path.logprobs) if known is not None]
        places = torch.tensor(trained) + len(row.ids) - len(path.logprobs)
        of_step = [advantage[path.steps[k]] for k in trained]
        old = torch.tensor([path.logprobs[k] for k in trained])
        now = log_p[places - 1, torch.tensor(row.ids)[places]]
        found.append(Alone(in_tree[first : first + len(trained)], now, old, torch.tensor(of_step)))
        first += len(trained)
    return found


def loss_of_path(path: Alone, config: PolicyLossConfig) -> Tensor:
    """The loss of one path as it is published, without division by the number of paths or tokens."""
    now, old, value = path.log_p, path.old, path.advantages
    ratio = (now - old).mean().exp().expand(len(now)) if config.clip == "sequence" else (now - old).exp()
    per_token = torch.minimum(ratio * value, ratio.clamp(1 - config.low, 1 + config.high) * value)
    if config.clip == "none":
        per_token = ratio * value
    if config.clip == "cispo":
        per_token = ratio.detach().clamp(max=1 + config.high) * value * now
    apart = 0.9 * old - now
    per_token = per_token - config.kl * (apart.exp() - apart - 1)
    weight = {"path": 1 / len(now), "constant": 1 / config.length, "token": 1.0}[config.per]
    return -weight * per_token.sum()


def loss_of_paths(paths: Sequence[Alone], config: PolicyLossConfig) -> Tensor:
    total = sum(len(path.log_p) for path in paths) if config.per == "token" else len(paths)
    return torch.stack([loss_of_path(path, config) for path in paths]).sum() / total


def loss_of_tree(tree: Packed, config: PolicyLossConfig) -> Tensor:
    return tree_policy_loss(tree.log_p, tree.batch, tree.batch["totals"], config)[0]


def slope(loss: Tensor, of: Any) -> Tensor:
    found = torch.autograd.grad(loss, of, allow_unused=True, retain_graph=True)
    return torch.cat([g.flatten() for g in found if g is not None])


@pytest.fixture(scope="module", params=["qwen2_5_vl", "internvl"])
def policy(tiny_backbone: Callable[[str], Path], request: pytest.FixtureRequest) -> Checkpoint:
    """One family with M-RoPE, one with linear positions."""
    return load_packed_policy(str(tiny_backbone(request.param)))


@pytest.fixture(scope="module")
def both(policy: Checkpoint) -> tuple[Packed, list[Alone]]:
    rollouts = tree_of(policy.inputs, grid_problem())
    return packed(policy, rollouts), alone(policy, rollouts)


def test_the_loss_of_a_tree_is_that_of_its_paths(both: tuple[Packed, list[Alone]]) -> None:
    """For all clips and weights, with a divergence: the loss, and its slope at each token, summed over the paths
    through it. Crops and refusals are inside branches."""
    tree, paths = both
    tokens = torch.cat([path.tokens for path in paths])
    assert len(tokens.unique()) == len(tree.log_p) < len(tokens)
    for clip, per in itertools.product(CLIPS, PER):
        config = PolicyLossConfig(clip, per=per, kl=0.1, length=30)
        found, expected = loss_of_tree(tree, config), loss_of_paths(paths, config)
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)
        at_paths = slope(expected, [path.log_p for path in paths])
        summed = torch.zeros(len(tree.log_p)).index_add(0, tokens, at_paths)
        assert torch.allclose(slope(found, [tree.log_p]), summed, rtol=1e-5, atol=1e-5 * float(summed.abs().max()))


def test_the_gradient_of_a_tree_is_that_of_its_paths(policy: Checkpoint, both: tuple[Packed, list[Alone]]) -> None:
    config = PolicyLossConfig("ppo", kl=0.1)
    weights = list(policy.model.parameters())
    ours, theirs = slope(loss_of_tree(both[0], config), weights), slope(loss_of_paths(both[1], config), weights)
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-5


def test_every_clip_changes_the_loss_of_this_tree(both: tuple[Packed, list[Alone]]) -> None:
    """Otherwise the comparisons above would say nothing about clipping, high or low."""
    tree, _ = both
    assert len({loss_of_tree(tree, PolicyLossConfig(clip)).item() for clip in CLIPS}) == len(CLIPS)
    ratio = (tree.log_p - tree.batch["sampled"]).exp()[tree.batch["token"]]
    up = tree.batch["advantages"] > 0
    assert (up & (ratio > 1.28)).any()
    assert (~up & (ratio < 0.8)).any()


def test_before_an_update_ratios_are_one_and_nothing_is_clipped(policy: Checkpoint) -> None:
    rollouts = tree_of(policy.inputs, grid_problem())
    tree = packed(policy, rollouts)
    now = {**tree.batch, "sampled": tree.log_p.detach(), "reference": tree.log_p.detach()}
    _, measures = tree_policy_loss(tree.log_p, now, now["totals"], PolicyLossConfig("ppo", kl=0.1))
    pairs = float(measures.pop("pairs"))
    found = {name: value.item() / pairs for name, value in measures.items()}
    assert found == pytest.approx({"ratio": 1.0, "clipped": 0.0, "importance": 1.0, "kl": 0.0}, abs=1e-6)


def test_only_what_the_policy_sampled_has_a_target(policy: Checkpoint) -> None:
    """A state at the last layer gets a gradient only if it predicts an id that the policy sampled: none that predicts
    the prompt, a crop, a refusal, a given prefix, or the end of a turn that was cut."""
    inputs, problem = policy.inputs, grid_problem()
    rollouts = [trajectory(inputs, problem, [ZOOM, RED], cut=True, given=4), trajectory(inputs, problem, [TOLD, RED])]
    states: list[Tensor] = []

    def keep(module: Any, given: Any, output: Any) -> None:
        output.last_hidden_state.retain_grad()
        states.append(output.last_hidden_state)

    hook = policy.model.model.register_forward_hook(keep)
    tree = packed(policy, rollouts)
    hook.remove()
    policy.model.zero_grad()
    loss_of_tree(tree, PolicyLossConfig("none")).backward()
    assert states[0].grad is not None
    reached = set(states[0].grad[0].abs().sum(-1).nonzero().flatten().tolist())
    chosen, before = tree.batch["chosen"][0], tree.batch["before"][0]
    assert reached == set(before[chosen].tolist())
    turns = [turn for rollout in rollouts for turn in rollout.turns]
    sampled = [i for turn in turns for i, p in zip(turn.ids, turn.logprobs, strict=True) if p is not None]
    assert set(tree.batch["input_ids"][0][chosen].tolist()) == set(sampled)
    assert len(tree.batch["token"]) == len(sampled)


def test_the_split_into_batches_does_not_change_the_gradient(policy: Checkpoint) -> None:
    rollouts = tree_of(policy.inputs, grid_problem())
    groups = rollouts[:3], rollouts[3:]
    weight = [policy.model.lm_head.weight]
    whole, parts = packed(policy, *groups), [packed(policy, group) for group in reversed(groups)]
    for per in PER:
        config = PolicyLossConfig("ppo", per=per)
        expected = slope(loss_of_tree(whole, config), weight)
        losses = [tree_policy_loss(part.log_p, part.batch, whole.batch["totals"], config)[0] for part in parts]
        found = torch.stack([slope(loss, weight) for loss in losses]).sum(0)
        assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))
