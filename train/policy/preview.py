"""What a run of policy learning would do: the size of a round, and one solution with the advantage of each step."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

from train.policy.grpo_config import GrpoConfig
from train.policy.learner import rows_of
from train.policy.monitors import round_metrics
from train.policy.rounds import Rated, Rollouts
from train.policy.trajectories import path_of
from vlprm.model.inputs import InputBuilder
from vlprm.schema import Problem

UNTRAINED = "-"


def report(rollouts: Rollouts, problem: Callable[[str], Problem], inputs: InputBuilder, config: GrpoConfig) -> str:
    """The size of a round and its first solution with an advantage, as text."""
    trees = paths = 0
    for of_problem in rollouts:
        kept = [one for one in of_problem if not one.excluded]
        if kept:
            made = problem(kept[0].trajectory.problem_id)
            trees += sum(len(row.row.ids) for row in rows_of(kept, made, inputs))
            prompt = len(inputs.prompt(made).ids)
            paths += sum(prompt + len(path_of(one.trajectory, made, inputs).logprobs) for one in kept)
    numbers = round_metrics(rollouts, config.terms)
    measures = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items() if isinstance(value, float))
    total = numbers["rollouts"] * config.rounds
    lines = [
        f"a round: {numbers['rollouts']:,} rollouts of {len(rollouts):,} problems, {numbers['kept']:,} kept; {trees:,}"
        f" tokens as trees, {paths:,} as paths; {config.rounds:,} rounds: {total:,} rollouts",
        f"measures of the first round: {measures}",
    ]
    shown = max((one for of in rollouts for one in of if not one.excluded), key=_spread, default=None)
    if shown is None:
        return "\n".join([*lines, "no solution is kept"])
    made = problem(shown.trajectory.problem_id)
    title = "One of them; under each step its advantage, under what is not trained -:"
    return "\n".join([*lines, "", title, decoded(shown, made, inputs)])


def decoded(one: Rated, problem: Problem, inputs: InputBuilder) -> str:
    """The tokens of a solution after the prompt as text, in runs of one step, each with its advantage below."""
    path = path_of(one.trajectory, problem, inputs)
    tokens = [
        (token, is_image)
        for part in path.parts
        for token, is_image in zip(part.segment.ids, part.segment.image_mask, strict=True)
    ]
    marks = [
        (UNTRAINED if known is None else _mark(one, step), step)
        for known, step in zip(path.logprobs, path.steps, strict=True)
    ]
    lines = [problem.question, f"    {UNTRAINED}"]
    for (mark, _), run in groupby(zip(marks, tokens, strict=True), key=lambda pair: pair[0]):
        ids, image_mask = zip(*(token for _, token in run), strict=True)
        lines += [inputs.decode(ids, image_mask).strip("\n"), f"    {mark}"]
    return "\n".join(lines)


def _mark(one: Rated, step: int) -> str:
    advantage = one.advantages[step]
    return f"{UNTRAINED} (no result)" if advantage is None else f"{advantage:+.3f}"


def _spread(one: Rated) -> float:
    """Solutions whose advantages differ most, and that zoom, show most."""
    known = [a for a in one.advantages if a is not None]
    return max(known, default=0.0) - min(known, default=0.0) + any(step.region for step in one.trajectory.steps)
