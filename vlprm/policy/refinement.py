"""Refinements: solutions that go on from a critique's correction."""

from __future__ import annotations

from collections.abc import Sequence

from vlprm.answers import is_correct
from vlprm.policy import Policy, Request
from vlprm.policy.rollout import closed, rollouts
from vlprm.schema import Problem, Step


def put_right(before: Sequence[Step], corrected: Step) -> tuple[Step, ...]:
    """The prefix from which a refinement goes on: the steps before the wrong one, and its correction. A corrected zoom
    is left out, because its crop has not been executed; the policy writes it anew."""
    return tuple(before) if corrected.kind == "zoom" else (*before, corrected)


async def right_refinements(
    engine: Policy,
    problem: Problem,
    before: Sequence[Step],
    corrected: Step,
    n: int,
    key: str,
    seed: int,
    max_tokens: int = 200,
) -> float | None:
    """The share of right solutions among `n` that go on from a correction; None if none of them has an answer. A
    correction that is an answer ends its solution: nothing is sampled."""
    beginning = put_right(before, corrected)
    if corrected.kind == "answer":
        answers = [closed(problem, beginning, tokens=0).answer]
    else:
        asked = Request(problem, beginning, n, f"{key}/refined", seed, max_tokens=max_tokens)
        answers = [solution.answer for solution in await rollouts(engine, asked)]
    right = [is_correct(a, str(problem.answer), problem.answer_type) for a in answers if a is not None]
    return sum(map(bool, right)) / len(right) if right else None
