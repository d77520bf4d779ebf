"""Hand-made trajectories with crops, refusals and cut turns, for tests of policy learning."""

from __future__ import annotations

import math
from collections.abc import Sequence

from train.policy.trajectories import SampledTurn, Trajectory
from vlprm.model.inputs import InputBuilder
from vlprm.schema import Problem, Region, Step
from vlprm.steps import turns_of
from vlprm.tasks import TASKS

ZOOM = Step("zoom", '[zoom] {"bbox_2d": [0, 0, 500, 500], "label": "sign"}', Region(0, 0, 40, 40))
TOLD = Step("zoom", "[zoom] nothing", told="that is no box")
READ, COUNT = Step("perception", "[perception] sign: red."), Step("reasoning", "[reasoning] red red.")
RED, BLUE = Step("answer", "[answer] red"), Step("answer", "[answer] blue")


def grid_problem() -> Problem:
    return TASKS["count_grid"].problem("train", 0)


def trajectory(
    inputs: InputBuilder, problem: Problem, steps: Sequence[Step], cut: bool = False, given: int = 0
) -> Trajectory:
    """A trajectory of these steps. `cut`: turns before a crop were cut, so their ends were not sampled. `given`: number
    of ids of the first turn that were not sampled. The log-probabilities depend on the ids before."""
    turns, before = [], [*inputs.prompt(problem).ids[-4:]]
    for turn in turns_of(steps):
        ids = (*inputs.text.encode(inputs.text.turn(turn)), inputs.end_of_turn)
        logprobs: list[float | None] = []
        for token in ids:
            before.append(token)
            logprobs.append(-6 + 0.4 * math.sin(sum(before)))
        logprobs[:given] = [None] * given
        given = 0
        end = len(ids) - 1 if cut and turn[-1].ends_turn else len(ids)
        turns.append(SampledTurn(len(turn), ids[:end], tuple(logprobs[:end])))
    return Trajectory(problem.id, tuple(steps), tuple(turns), "red", "answer")


def tree_of(inputs: InputBuilder, problem: Problem) -> list[Trajectory]:
    """Trajectories that share a crop, part before it, are told why a zoom was refused, and have none."""
    return [
        trajectory(inputs, problem, [ZOOM, READ, RED]),
        trajectory(inputs, problem, [ZOOM, READ, BLUE], cut=True),
        trajectory(inputs, problem, [ZOOM, COUNT, RED]),
        trajectory(inputs, problem, [TOLD, ZOOM, READ, RED]),
        trajectory(inputs, problem, [READ, COUNT, BLUE], given=3),
        trajectory(inputs, problem, [READ, RED]),
    ]
