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

The rows come from `train.critic_rows --rows prompts`; `vlprm.policy.critic_reward` says what a critique is worth.
`train.grpo` pays the same (configs/policy/critic.yaml).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlprm.data.messages import completion_text, own_images
from vlprm.integrations.trl import RewardFunction, image_file, media_of
from vlprm.model.loading import load_policy, placement
from vlprm.policy import Policy, all_answers
from vlprm.policy.critic_reward import (
    COLUMNS,
    LabelledStep,
    check_weights,
    labelled_step,
    refined_share,
    refuse_one_class,
    refuse_other_rows,
    worth,
)
from vlprm.policy.critique import StepCritique, parse_critique
from vlprm.policy.local import LocalPolicy
from vlprm.prompts import critique_template

log = logging.getLogger(__name__)

ONE_CLASS = 64  # different prompts of one class after which a run is refused


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
    check_weights(judgement, refinement, bool(policy))
    form = critique_template(template)
    engine = LocalPolicy(load_policy(policy, *placement(device, dtype))) if policy else None
    seen: dict[str, bool] = {}

    def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        rows = _rows(columns, len(prompts))
        seen.update((f"{row.problem.id} {row.steps}", row.right) for row in rows)
        if len(seen) >= ONE_CLASS:
            refuse_one_class(list(seen.values()), f"of the first {len(seen)} steps")
        read = [parse_critique(completion_text(completion), form) for completion in completions]
        refined: list[float | None] = [None] * len(rows)
        if engine is not None:
            refined = asyncio.run(_refined(engine, rows, read, samples))
        found = [
            worth(said, row.right, helped, judgement, refinement)
            for said, row, helped in zip(read, rows, refined, strict=True)
        ]
        if None in found:
            log.warning(
                "%d of %d critiques have no reward: %d cannot be read, the others' refinements have no answer",
                found.count(None), len(found), read.count(None),
            )  # fmt: skip
        return found

    reward.__name__ = "critic_reward"
    return reward


async def _refined(
    engine: Policy, rows: Sequence[LabelledStep], critiques: Sequence[StepCritique | None], samples: int
) -> list[float | None]:
    return await all_answers(
        refined_share(engine, row, said, samples, f"{row.problem.id}/{k}")
        for k, (row, said) in enumerate(zip(rows, critiques, strict=True))
    )


def _rows(columns: dict[str, Any], count: int) -> list[LabelledStep]:
    refuse_other_rows([name for name in COLUMNS if columns.get(name) is not None], "the dataset")
    media = media_of(columns, count)
    return [
        labelled_step(right, problem, steps, map(image_file, own_images(of_row)))
        for right, problem, steps, of_row in zip(*(columns[name] for name in COLUMNS), media, strict=True)
    ]
