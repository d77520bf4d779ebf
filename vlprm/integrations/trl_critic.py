"""The reward of a critic in TRL's GRPO: whether its verdict is right, and whether its correction helps.

    from datasets import load_dataset
    from trl import GRPOConfig, GRPOTrainer
    from vlprm.integrations.trl_critic import critic_reward

    GRPOTrainer(
        "runs/think_prm",
        reward_funcs=critic_reward(refinement=1.0, policy="Qwen/Qwen3-VL-2B-Instruct"),
        args=GRPOConfig("runs/critic_grpo", max_completion_length=2048),
        train_dataset=load_dataset("parquet", data_files="runs/critic_prompts/prompts.parquet", split="train"),
    ).train()

The rows come from `train.critic_rows --rows prompts`. RefCritic (arXiv 2507.15024) first pays the judgement alone, then
judgement and refinement alike; Critique-RL (arXiv 2510.24320) too pays a refinement only after a right judgement. With
a critique of one step this holds by itself: a step that is called right has no correction.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlprm.data.messages import completion_text, own_images
from vlprm.errors import UserError
from vlprm.integrations.trl import RewardFunction, image_file, media_of
from vlprm.model.loading import load_policy, placement
from vlprm.policy import Policy, all_answers
from vlprm.policy.critique import StepCritique, parse_critique
from vlprm.policy.local import LocalPolicy
from vlprm.policy.refinement import right_refinements
from vlprm.prompts import critique_template
from vlprm.schema import Problem, Step, from_json

log = logging.getLogger(__name__)

ONE_CLASS = 64  # different prompts of one class after which a run is refused


@dataclass(frozen=True)
class Row:
    """A criticised step, the last of `steps`, and whether it is right."""

    problem: Problem
    steps: tuple[Step, ...]
    right: bool


def critic_reward(
    judgement: float = 1.0,
    refinement: float = 0.0,
    policy: str | Path = "",
    samples: int = 4,
    template: str = "critique@3",
    device: str = "auto",
    dtype: str = "auto",
) -> RewardFunction:
    """A function `(prompts, completions, right, problem, steps, **columns)` -> one reward in [0, 1] per critique.

    It is the weighted mean of two parts: whether the verdict on the step is right, and the share of `samples` solutions
    in which `policy` goes on from the critique's correction and is right. A right step has only the first part. The
    reward is None if the critique cannot be read or no refinement has an answer; their number is logged.

    `template` is the critic's (`critique_template` in its vlprm.json). UserError for weights without a sum, a
    refinement without a policy, or prompts of which the first 64 are all right or all wrong: a critic would learn to
    call all steps that.
    """
    if min(judgement, refinement) < 0 or not judgement + refinement:
        raise UserError(f"judgement {judgement:g} and refinement {refinement:g} are not weights; give one above 0")
    if bool(refinement) != bool(policy):
        raise UserError("a refinement needs a policy, and a policy a weight; give refinement and policy, or neither")
    form = critique_template(template)
    engine = LocalPolicy(load_policy(policy, *placement(device, dtype))) if policy else None
    seen: dict[str, bool] = {}

    def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        rows = _rows(columns, len(prompts))
        seen.update((f"{row.problem.id} {row.steps}", row.right) for row in rows)
        _refuse_one_class(list(seen.values()))
        read = [parse_critique(completion_text(completion), form) for completion in completions]
        judged = [
            None if said is None else (said.corrected is None) == row.right
            for said, row in zip(read, rows, strict=True)
        ]
        refined: list[float | None] = [None] * len(rows)
        if engine is not None:
            refined = asyncio.run(_refined(engine, rows, read, samples))
        found = [
            None if right is None else value(right, row.right, helped, judgement, refinement)
            for right, row, helped in zip(judged, rows, refined, strict=True)
        ]
        if None in found:
            unread = judged.count(None)
            log.warning(
                "%d of %d critiques have no reward: %d cannot be read, the others' refinements have no answer",
                found.count(None), len(found), unread,
            )  # fmt: skip
        return found

    reward.__name__ = "critic_reward"
    return reward


def value(
    judged: bool, step_is_right: bool, refined: float | None, judgement: float, refinement: float
) -> float | None:
    """The reward of a critique that judged a step rightly or not, and from whose correction this share of solutions is
    right (None: unknown)."""
    if step_is_right or not refinement:
        return float(judged)
    if not judged:  # a wrong step that is called right
        return 0.0
    return None if refined is None else (judgement + refinement * refined) / (judgement + refinement)


async def _refined(
    engine: Policy, rows: Sequence[Row], critiques: Sequence[StepCritique | None], samples: int
) -> list[float | None]:
    return await all_answers(
        _helped(engine, row, said, samples, f"{row.problem.id}/{k}")
        for k, (row, said) in enumerate(zip(rows, critiques, strict=True))
    )


async def _helped(engine: Policy, row: Row, said: StepCritique | None, samples: int, key: str) -> float | None:
    """The share of right solutions that go on from the correction of a wrong step; None if none has an answer."""
    if row.right or said is None or said.corrected is None:
        return None
    return await right_refinements(engine, row.problem, row.steps[:-1], said.corrected, samples, key, seed=0)


def _rows(columns: dict[str, Any], count: int) -> list[Row]:
    if missing := [name for name in ("right", "problem", "steps") if columns.get(name) is None]:
        raise UserError(f"the dataset lacks {', '.join(missing)}; make it with train.critic_rows --rows prompts")
    media = media_of(columns, count)
    return [_row(*row) for row in zip(columns["right"], columns["problem"], columns["steps"], media, strict=True)]


def _row(right: bool, problem: str, steps: str, media: dict[str, Any]) -> Row:
    known = json.loads(problem)
    images = tuple(map(image_file, own_images(media)[: known.pop("images")]))
    return Row(Problem(**known, images=images), tuple(from_json(Step, one) for one in json.loads(steps)), right)


def _refuse_one_class(right: Sequence[bool]) -> None:
    if len(right) >= ONE_CLASS and len(set(right)) == 1:
        said = "right" if right[0] else "wrong"
        raise UserError(
            f"all of the first {len(right)} steps are {said}, so the critic would learn to call every step {said}; mix"
            " right and wrong ones, as train.critic_rows --rows prompts does"
        )
