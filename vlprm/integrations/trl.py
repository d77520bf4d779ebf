"""Rewards of TRL's GRPO: a trained step-reward model for a policy, and for a critic what its critiques are worth.

    from datasets import load_dataset
    from trl import GRPOConfig, GRPOTrainer
    from vlprm.integrations.trl import step_reward

    def right(prompts, completions, answer, **columns):  # 1, 0, or None
        return [float(text.endswith(f"[answer] {gold}")) for text, gold in zip(completions, answer)]

    GRPOTrainer(
        "Qwen/Qwen3-VL-2B-Instruct",
        reward_funcs=step_reward("runs/demo/prm", outcome=right),
        args=GRPOConfig("runs/grpo"),
        train_dataset=load_dataset("parquet", data_files="problems.parquet", split="train"),  # prompt, image, answer
    ).train()

Without `outcome`, the reward is the reward model's own opinion. It ranks candidates well, but a policy that is trained
on it learns in the end to please it: reward up, right answers down (URSA, PURE and others report it). With `outcome`,
the reward is the outcome, and half of it for a right solution whose step rewards fall sharply (`vlprm.scoring.gate`).
`train.grpo` has more ways, and watches the truth.

`critic_reward` pays critiques (vlprm.integrations.trl_critic has an example).

Importing this does not need TRL, which calls a plain function.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from vlprm.data.importing import from_data_url
from vlprm.data.messages import OTHER_MEDIA, completion_text, ordered_images, own_images, question_of
from vlprm.errors import RecordError, UserError
from vlprm.images import encoded
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import placement
from vlprm.published.load import load
from vlprm.schema import Aggregation, Problem, Step
from vlprm.scoring.aggregate import AGGREGATIONS, aggregated
from vlprm.scoring.gate import gated
from vlprm.scoring.tree import score
from vlprm.steps import split_steps

log = logging.getLogger(__name__)

Scorable = tuple[Problem, list[Step]]
RewardFunction = Callable[..., list[float | None]]  # as TRL calls it, with keywords


def step_reward(
    checkpoint: str | Path,
    aggregation: Aggregation | None = None,
    device: str = "auto",
    dtype: str = "auto",
    outcome: RewardFunction | None = None,
) -> RewardFunction:
    """A function `(prompts, completions, **columns)` -> one reward per completion: the probabilities that its steps are
    correct, aggregated by `aggregation` (None: the checkpoint's rule).

    With `outcome`, a function of the same form that returns 1 for a right completion, 0 for a wrong one and None for
    neither, the reward is the outcome gated by the step rewards: prefer it in training, because a policy learns to
    exploit step rewards that are paid as they are. It takes no `aggregation`.

    Prompts and completions are texts or lists of messages. Images are in the prompt's messages, or in a column
    `images` (lists) or `image`, as PIL images, bytes, dicts of bytes, or data URLs. A completion is split into steps
    at blank lines. The reward is None if there is nothing to score: an empty completion, tool calls, several turns, a
    video, or a missing or unreadable image. Their number and the first cause are logged.

    `checkpoint` may name a published reward model (`vlprm.published`).

    If several processes train, give each its own device, such as `cuda:1`. UserError for an unknown folder, rule or
    device.
    """
    if outcome is not None and aggregation is not None:
        raise UserError("a gated outcome does not aggregate step rewards; leave out aggregation, or outcome")
    if aggregation is not None and aggregation not in AGGREGATIONS:
        raise UserError(f"unknown aggregation {aggregation!r}; give one of {', '.join(AGGREGATIONS)}")
    loaded = load(checkpoint, *placement(device, dtype))
    rule = aggregation or loaded.config.aggregation

    def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        solutions = _solutions(loaded.inputs, prompts, completions, media_of(columns, len(prompts)))
        rewards = iter(score(loaded, [solution for solution in solutions if solution is not None]))
        steps = [None if solution is None else next(rewards) for solution in solutions]
        if outcome is None:
            return [None if of is None else aggregated(of, rule) for of in steps]
        outcomes = outcome(prompts=prompts, completions=completions, **columns)
        return [gated(right, of) for right, of in zip(outcomes, steps, strict=True)]

    reward.__name__ = f"step_reward_{rule}" if outcome is None else "gated_outcome"  # the name in TRL's logs
    return reward


def _solutions(
    inputs: InputBuilder, prompts: Sequence[Any], completions: Sequence[Any], media: Sequence[dict[str, Any]]
) -> list[Scorable | None]:
    found: list[Scorable | None] = []
    errors: list[ValueError] = []
    for prompt, completion, columns in zip(prompts, completions, media, strict=True):
        try:
            found.append((_problem(inputs, prompt, own_images(columns)), _steps(completion)))
        except ValueError as error:
            errors.append(error)
            found.append(None)
    if errors:
        log.warning("%d of %d completions have no reward; the first: %s", len(errors), len(found), errors[0])
    return found


def _problem(inputs: InputBuilder, prompt: Any, own: list[Any]) -> Problem:
    question, marks = question_of(prompt)
    problem = Problem(
        "", "trl", question, tuple(image_file(image) for image in ordered_images(marks, own)), None, "word"
    )
    inputs.prompt(problem)  # render and cache it here, so that a prompt that fails does not stop the others
    return problem


def _steps(completion: Any) -> list[Step]:
    text = completion_text(completion)
    if not text.strip():
        raise RecordError("no_steps", "its completion is empty; a reward needs a step")
    return split_steps(text)


def media_of(columns: dict[str, Any], rows: int) -> list[dict[str, Any]]:
    """The columns with images, videos or audio, row by row."""
    found = {name: columns[name] for name in ("images", "image", *OTHER_MEDIA) if columns.get(name) is not None}
    return [{name: column[row] for name, column in found.items()} for row in range(rows)]


def image_file(image: Any) -> bytes:
    """The encoded image of a dataset column: a PIL image, its bytes, a data URL, or the dict of `datasets` with one of
    these. RecordError for anything else, such as an address on the web."""
    if isinstance(image, Image.Image):
        return encoded(image)
    data = image.get("bytes") or image.get("url") if isinstance(image, dict) else image
    if isinstance(data, str) and data.startswith("data:"):
        return from_data_url(data)
    if not isinstance(data, bytes):
        raise RecordError("image_missing", f"its image is a {type(image).__name__}; give a PIL image, or its bytes")
    return data
