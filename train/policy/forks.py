"""Rollouts that fork on purpose: a few from the prompt, and others that continue from within them.

Solutions that are sampled apart share no step, so values of states on their tree say nothing. A fork shares a prefix,
id for id, and its siblings show what the next step is worth.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from train.policy.advantages import GroupNumbers, ScoreSteps, StepNumbers
from train.policy.grpo_config import At, ForksConfig
from train.policy.trajectories import step_of_each_id
from vlprm.model.inputs import InputBuilder
from vlprm.policy import Policy, Request, Turn, all_answers
from vlprm.policy.rollout import Rollout, rollouts_with_turns
from vlprm.schema import Step


async def forked_rollouts(
    engine: Policy, request: Request, inputs: InputBuilder, forks: ForksConfig, scored: ScoreSteps | None = None
) -> list[Rollout]:
    """`request.n` complete solutions with their turns; one of each `forks.per_node` starts at the prompt, and the
    others go on from one of its steps. Where a rollout cannot fork, they start at the prompt too."""
    assert not request.steps, "a rollout that forks starts at the prompt"
    if forks.at == "none":
        return await rollouts_with_turns(engine, request)
    first = await rollouts_with_turns(engine, replace(request, n=math.ceil(request.n / forks.per_node)))
    scores: GroupNumbers = [None] * len(first)
    if forks.at == "drop":
        assert scored is not None, "a drop is one of a reward model's score"
        scores = await scored(request.problem, [one.solution.steps for one in first]) or scores
    shares = [len(range(i, request.n - len(first), len(first))) for i in range(len(first))]
    grown = await all_answers(
        _siblings(engine, replace(request, n=n, key=f"{request.key}/fork {i}"), inputs, forks, one, of_one)
        for i, (n, one, of_one) in enumerate(zip(shares, first, scores, strict=True))
        if n
    )
    return [*first, *(sibling for siblings in grown for sibling in siblings)]


async def _siblings(
    engine: Policy,
    request: Request,
    inputs: InputBuilder,
    forks: ForksConfig,
    rollout: Rollout,
    scores: StepNumbers | None,
) -> list[Rollout]:
    """`request.n` rollouts from a fork of this one."""
    at = fork_step(rollout, forks.at, inputs, scores, random.Random(f"{request.seed}/{request.key}"))
    before = None if at is None else turns_until(rollout, at, inputs)
    if at is None or before is None:
        return await rollouts_with_turns(engine, request)
    prefix = replace(request, steps=rollout.solution.steps[:at], sampled=before)
    return [_whole(one, before, prefix.steps) for one in await rollouts_with_turns(engine, prefix)]


def fork_step(
    rollout: Rollout, at: At, inputs: InputBuilder, scores: StepNumbers | None, rng: random.Random
) -> int | None:
    """The index of the step that is sampled again; None if no step is eligible. The first step is not: a rollout that
    shares nothing but the prompt is not a fork."""
    steps = rollout.solution.steps
    known: dict[int, float] = dict.fromkeys(range(1, len(steps)), 0.0)
    if at == "zoom":
        known = dict.fromkeys([k for k in known if steps[k].kind == "zoom"], 0.0)
    elif at == "entropy":
        surprise = surprises(rollout, inputs)
        known = {k: surprise[k] for k in known if k in surprise}
    elif at == "drop":
        known = {
            k: before - after
            for k, (before, after) in enumerate(zip(scores or (), (scores or ())[1:], strict=False), start=1)
            if before is not None and after is not None
        }
    best = [k for k, value in known.items() if value == max(known.values())]
    return rng.choice(best) if best else None


def surprises(rollout: Rollout, inputs: InputBuilder) -> dict[int, float]:
    """The mean surprise of the ids of each step, which estimates their entropy without bias."""
    found: dict[int, list[float]] = {}
    at = 0
    for turn in rollout.turns:
        steps = rollout.solution.steps[at : at + turn.steps]
        of_ids = step_of_each_id(inputs.tokenizer, turn.ids, steps)
        for k, logprob in zip(of_ids, turn.logprobs, strict=False):
            if k < len(steps):
                found.setdefault(at + k, []).append(-logprob)
        at += turn.steps
    return {k: fmean(of) for k, of in found.items()}


def turns_until(rollout: Rollout, end: int, inputs: InputBuilder) -> tuple[Turn, ...] | None:
    """The turns of a rollout up to step `end`, the last one cut there; None if no sampled id ends there."""
    turns: list[Turn] = []
    at = 0
    for turn in rollout.turns:
        if at >= end:
            break
        if at + turn.steps > end:
            steps = rollout.solution.steps[at:end]
            ids = inputs.text.to_the_end_of(steps, turn.ids, after=None)
            if ids != turn.ids[: len(ids)]:
                return None
            turn = Turn(len(steps), ids, turn.logprobs[: len(ids)])
        turns.append(turn)
        at += turn.steps
    return tuple(turns)


def _whole(forked: Rollout, before: Sequence[Turn], steps: Sequence[Step]) -> Rollout:
    """A rollout from a fork with the turns `before` it; a turn that was cut at the fork, after these steps, goes on in
    the rollout's first turn."""
    if not before or steps[-1].ends_turn or not forked.turns:
        return replace(forked, turns=(*before, *forked.turns))
    cut, goes_on = before[-1], forked.turns[0]
    joined = replace(
        goes_on,
        steps=cut.steps + goes_on.steps,
        ids=cut.ids + goes_on.ids,
        logprobs=cut.logprobs + goes_on.logprobs,
    )
    return replace(forked, turns=(*before[:-1], joined, *forked.turns[1:]))
