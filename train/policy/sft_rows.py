"""Right solutions as packed rows: solutions of one problem share their beginnings; wrong steps carry no loss."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from train.policy.batches import PolicyRow, policy_batch, policy_row
from train.policy.fit import Batch
from train.policy.solutions import Taught, TaughtProblem
from train.policy.trajectories import SampledTurn, Trajectory, path_of
from vlprm.model.inputs import InputBuilder
from vlprm.schema import Problem
from vlprm.steps import turns_of

LEARNT = 0.0  # in place of the log-probability of a sampled id


def examples_of(problems: Sequence[TaughtProblem], inputs: InputBuilder) -> list[TaughtProblem]:
    """One example per problem; one per solution if the backbone cannot read branches."""
    if not inputs.family.cannot_pack:
        return list(problems)
    return [TaughtProblem(one.problem, (taught,)) for one in problems for taught in one.solutions]


def sft_row(example: TaughtProblem, inputs: InputBuilder) -> PolicyRow:
    """The packed row of an example."""
    rollouts = [as_trajectory(example.problem, taught, inputs) for taught in example.solutions]
    paths = [path_of(rollout, example.problem, inputs) for rollout in rollouts]
    return policy_row(example.problem, paths, [[1.0] * len(rollout.steps) for rollout in rollouts], inputs)


def sft_batch(examples: Sequence[TaughtProblem], inputs: InputBuilder) -> Batch:
    """A padded batch of `train.policy.batches.policy_batch`, with the `ids` of its problems."""
    rows = list(map(partial(sft_row, inputs=inputs), examples))
    return {**policy_batch(rows, inputs), "ids": [row.id for row in rows]}


def as_trajectory(problem: Problem, taught: Taught, inputs: InputBuilder) -> Trajectory:
    """The solution as if the policy had sampled its learnt steps and the ends of its turns. The id after a step that is
    not learnt is not learnt either: it would teach that the step was right."""
    turns, at, last = [], 0, len(taught.steps) - 1
    for turn in turns_of(taught.steps):
        ids: list[int] = []
        learnt: list[bool] = []
        for k, step in enumerate(turn, at):
            after = taught.steps[k - 1] if k > at else None
            of_step = inputs.text.step_ids(step, after, closes=k == last)
            lead = len(inputs.text.lead(after))
            follows_wrong = k > at and not taught.learnt[k - 1]
            ids += of_step
            learnt += [taught.learnt[k] and not (follows_wrong and place < lead) for place in range(len(of_step))]
        at += len(turn)
        ids.append(inputs.end_of_turn)
        learnt.append(taught.learnt[at - 1])
        turns.append(SampledTurn(len(turn), tuple(ids), tuple(LEARNT if one else None for one in learnt)))
    return Trajectory(problem.id, taught.steps, tuple(turns), problem.answer, "answer")
