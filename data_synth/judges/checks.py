"""Checkers: sources of verdicts that compute, need no model, and are silent where they cannot tell.

A check never says *wrong* without a false statement that it can name, and `arithmetic` never says *correct*: silence is
not agreement. `RATES` are declared, because a check makes no mistakes that anchors could show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from data_synth.judges.arithmetic import false_equality
from vlprm.schema import Problem, Step, Verdict
from vlprm.steps import parse_step
from vlprm.tasks import Tasks, task_of
from vlprm.tasks.synthetic import truthful

Check = Literal["deduction", "arithmetic"]
RATES: dict[Check, dict[str, float]] = {
    "deduction": {"specificity": 0.999, "sensitivity": 0.999},
    "arithmetic": {"specificity": 0.99, "sensitivity": 0.99},
}


def deduction(problem: Problem, steps: Sequence[Step], tasks: Tasks) -> list[Verdict | None]:
    """Whether each derived step of a drawn problem follows from what the solution stated before it. None for a reading,
    a step that does not parse, and one whose premises the solution did not all state.

    Up to the first error, a step that does not follow is wrong. After it two slips can cancel.
    """
    family, scene = task_of(problem.task, tasks), problem.meta["scene"]
    right = family.claims(problem, [parse_step(text) for text in family.solve(scene, truthful)])
    keys = [claim.key for claim in right if claim]
    stated: set[str] = set()
    said: list[Verdict | None] = []
    for claim in family.claims(problem, steps):
        derived = claim is not None and not claim.is_reading and claim.key in keys
        if claim is None or not derived or not stated.issuperset(keys[: keys.index(claim.key)]):
            said.append(None)
        elif claim.said == claim.implied:
            said.append(Verdict(True))
        else:
            said.append(Verdict(False, "reasoning", f"{claim.implied} follows from the steps before"))
        if claim:
            stated.add(claim.key)
    return said


def arithmetic(problem: Problem, steps: Sequence[Step], tasks: Tasks) -> list[Verdict | None]:
    """Steps that state a false equality of numbers are wrong; the check is silent about all others."""
    found = (false_equality(step.text) for step in steps)
    return [Verdict(False, "reasoning", f"{wrong} is false") if wrong else None for wrong in found]


CHECKS: dict[Check, Callable[[Problem, Sequence[Step], Tasks], list[Verdict | None]]] = {
    "deduction": deduction,
    "arithmetic": arithmetic,
}
