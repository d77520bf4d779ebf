"""What a critique of a labelled step is worth: whether its verdict is right, and whether its correction helps.

RefCritic (arXiv 2507.15024) first pays the judgement alone, then judgement and refinement alike; Critique-RL (arXiv
2510.24320) too pays a refinement only after a right judgement. With a critique of one step this holds by itself: a step
that is called right has no correction. `vlprm.integrations.trl_critic` and `train.grpo` pay critiques by it.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from vlprm.errors import UserError
from vlprm.policy import Policy
from vlprm.policy.critique import StepCritique
from vlprm.policy.refinement import right_refinements
from vlprm.schema import Problem, Step, from_json

COLUMNS = ("right", "problem", "steps")  # what `train.critic_rows --rows prompts` writes about a step
ROWS = "train.critic_rows --rows prompts"


@dataclass(frozen=True)
class LabelledStep:
    """A step to criticise, the last of `steps`, and whether its label calls it right. Those before it are right."""

    problem: Problem
    steps: tuple[Step, ...]
    right: bool


def labelled_step(right: bool, problem: str, steps: str, images: Iterable[bytes]) -> LabelledStep:
    """The step of a row, from its `COLUMNS` and its images, of which the problem's come first."""
    known = json.loads(problem)
    own = tuple(islice(images, known.pop("images")))
    return LabelledStep(Problem(**known, images=own), tuple(from_json(Step, one) for one in json.loads(steps)), right)


def refuse_other_rows(columns: Container[str], name: str) -> None:
    """UserError if the rows of that name lack columns of labelled steps."""
    if missing := [column for column in COLUMNS if column not in columns]:
        raise UserError(f"{name} lacks {', '.join(missing)}; make it with {ROWS}")


def refuse_one_class(right: Sequence[bool], steps: str) -> None:
    """UserError if all `steps` are right, or all are wrong."""
    if len(set(right)) == 1:
        said = "right" if right[0] else "wrong"
        raise UserError(
            f"all {steps} are {said}, so the critic would learn to call every step {said}; mix right and wrong ones, as"
            f" {ROWS} does"
        )


def check_weights(judgement: float, refinement: float, has_policy: bool) -> None:
    """UserError for weights without a sum, or a refinement without a policy that refines."""
    if min(judgement, refinement) < 0 or not judgement + refinement:
        raise UserError(f"judgement {judgement:g} and refinement {refinement:g} are not weights; give one above 0")
    if bool(refinement) != has_policy:
        raise UserError("a refinement needs a policy, and a policy a weight; give refinement and policy, or neither")


def is_judged_right(said: StepCritique, step_is_right: bool) -> bool:
    """Whether a critique's verdict is the step's label."""
    return (said.corrected is None) == step_is_right


async def refined_share(
    engine: Policy,
    step: LabelledStep,
    said: StepCritique | None,
    n: int,
    key: str,
    seed: int = 0,
    max_tokens: int = 200,
) -> float | None:
    """The share of right solutions among `n` that go on from the correction of a wrong step; None if none has an
    answer, and where there is nothing to refine: a right step, one that is called right, a critique that cannot be
    read."""
    if step.right or said is None or said.corrected is None:
        return None
    return await right_refinements(engine, step.problem, step.steps[:-1], said.corrected, n, key, seed, max_tokens)


def worth(
    said: StepCritique | None, step_is_right: bool, refined: float | None, judgement: float, refinement: float
) -> float | None:
    """The reward of a critique in [0, 1]: the weighted mean of its judgement and of the share of right solutions from
    its correction. A right step has only the first part. None, which never counts as 0, for a critique that cannot be
    read, and if the share is unknown."""
    if said is None:
        return None
    judged = is_judged_right(said, step_is_right)
    if step_is_right or not refinement:
        return float(judged)
    if not judged:  # a wrong step that is called right
        return 0.0
    return None if refined is None else (judgement + refinement * refined) / (judgement + refinement)
