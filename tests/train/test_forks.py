"""Rollouts that fork: siblings share the sampled ids of their prefix, and the fork is where it was asked for."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from train.loop.batches import model_inputs
from train.policy.batches import NOT_INPUTS, policy_batch, policy_row
from train.policy.forks import fork_step, forked_rollouts, turns_until
from train.policy.grpo_config import ForksConfig
from train.policy.model import load_packed_policy
from train.policy.rounds import trajectory_of
from train.policy.trajectories import path_of
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import load_inputs
from vlprm.policy import Request, Turn
from vlprm.policy.local import LocalPolicy
from vlprm.policy.rollout import Rollout
from vlprm.schema import Problem, Solution, Step
from vlprm.steps import join_steps, parse_step
from vlprm.tasks import TASKS

PLACE, ZOOM, READ = "[perception] row 1.", '[zoom] {"bbox_2d": [0, 0, 500, 500]}', "[perception] red."


def made(inputs: InputBuilder, texts: Sequence[str], logprobs: Sequence[float]) -> Rollout:
    """A rollout of one turn; each id has its step's log-probability."""
    steps = tuple(parse_step(text) for text in texts)
    parts = [inputs.text.step_ids(step, steps[k - 1] if k else None) for k, step in enumerate(steps)]
    ids = tuple(i for part in parts for i in part)
    known = tuple(logprob for part, logprob in zip(parts, logprobs, strict=True) for _ in part)
    return Rollout(Solution("p", steps, None, "no_answer", len(ids)), (Turn(len(steps), ids, known),))


@pytest.mark.parametrize(
    ("at", "scores", "expected"),
    [("entropy", None, {3}), ("zoom", None, {1}), ("drop", (0.9, 0.8, 0.2, 0.1), {2}), ("uniform", None, {1, 2, 3})],
)
def test_a_rollout_forks_where_it_is_asked_to(inputs: InputBuilder, at: Any, scores: Any, expected: set[int]) -> None:
    rollout = made(inputs, (PLACE, ZOOM, READ, "[answer] red"), (-4.0, -0.1, -0.2, -2.0))
    found = {fork_step(rollout, at, inputs, scores, random.Random(seed)) for seed in range(30)}
    assert found == expected
    alone = made(inputs, ("[answer] red",), (-1.0,))
    assert fork_step(alone, at, inputs, scores and scores[:1], random.Random(0)) is None


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
def test_a_prefix_ends_with_the_ids_that_were_sampled(tiny_backbone: Callable[[str], Path], family: str) -> None:
    """In Qwen2.5's tokenizer one id ends a step and holds the break after it."""
    inputs = load_inputs(tiny_backbone(family))
    rollout = made(inputs, (PLACE, READ, "[answer] red"), (-1.0, -2.0, -3.0))
    (whole,) = rollout.turns
    (cut,) = turns_until(rollout, 2, inputs) or ()
    assert cut.ids == whole.ids[: len(cut.ids)]
    assert inputs.tokenizer.decode(cut.ids).rstrip("\n") == join_steps(rollout.solution.steps[:2])
    assert cut.logprobs == whole.logprobs[: len(cut.ids)]
    problem = TASKS["count_grid"].problem("train", 0)
    row = inputs.sampled_row(problem, rollout.solution.steps[:2], [(2, cut.ids)])
    assert row.ids == inputs.prompt(problem).ids + cut.ids
    if family == "qwen2_5_vl":
        assert inputs.tokenizer.decode(cut.ids).endswith(".\n\n"), "the break was sampled with the full stop"


def test_no_fork_where_no_sampled_id_ends(inputs: InputBuilder) -> None:
    rollout = made(inputs, (PLACE, READ), (-1.0, -2.0))
    (turn,) = rollout.turns
    other = dataclasses.replace(rollout, turns=(dataclasses.replace(turn, ids=turn.ids[:2] + turn.ids[3:]),))
    assert turns_until(other, 1, inputs) is None


@pytest.fixture(scope="module")
def problem() -> Problem:
    return TASKS["fine_print"].problem("train", 3)


@pytest.mark.parametrize("at", ["none", "uniform", "entropy", "drop", "zoom"])
def test_siblings_share_ids_and_have_the_models_log_probabilities(problem: Problem, at: Any) -> None:
    policy = load_packed_policy("builtin/policy")

    async def scored(problem: Problem, solutions: Sequence[tuple[Step, ...]]) -> list[list[float]]:
        return [[1 / (1 + k) for k in range(len(steps))] for steps in solutions]

    request = Request(problem, (), 6, "k", 0, max_tokens=120, logprobs=True)
    asked = forked_rollouts(LocalPolicy(policy), request, policy.inputs, ForksConfig(at, per_node=3), scored)
    found = asyncio.run(asked)
    assert len(found) == 6
    for one in found:
        assert all(len(turn.ids) == len(turn.logprobs) for turn in one.turns)
        assert sum(turn.steps for turn in one.turns) == len(one.solution.steps)
    trajectories = [trajectory_of(one, policy.inputs, 0) for one in found]
    paths = [path_of(one, problem, policy.inputs) for one in trajectories]
    row = policy_row(problem, paths, [[0.0] * max(1, len(one.steps)) for one in trajectories], policy.inputs)
    batch = policy_batch([row], policy.inputs)
    seen = model_inputs(batch, NOT_INPUTS)
    with torch.no_grad():
        log_p = policy.model(**seen, temperature=1.0, banned=policy.inputs.banned_ids).log_p
    assert torch.allclose(log_p, batch["sampled"], atol=2e-5)
    if at != "none":
        first, siblings = found[:2], found[2:]
        assert any(
            one.solution.steps[:1] == other.solution.steps[:1] and one.turns[0].ids[:4] == other.turns[0].ids[:4]
            for one in first
            for other in siblings
        )
        assert len(batch["token"]) > len(batch["sampled"]), "a shared prefix is stored once"
