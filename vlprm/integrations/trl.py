"""A trained step-reward model as a reward of TRL's GRPO.

    from datasets import load_dataset
    from trl import GRPOConfig, GRPOTrainer
    from vlprm.integrations.trl import step_reward

    GRPOTrainer(
        "Qwen/Qwen3-VL-2B-Instruct",
        reward_funcs=step_reward("runs/demo/prm"),
        args=GRPOConfig("runs/grpo"),
        train_dataset=load_dataset("parquet", data_files="problems.parquet", split="train"),  # prompt, image
    ).train()

Importing this does not need TRL, which calls a plain function.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from vlprm.data.importing import as_list
from vlprm.data.trl_format import ordered_images, question_of, text_of
from vlprm.errors import RecordError, UserError
from vlprm.images import encoded
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import placement
from vlprm.model.reward_loading import load_reward_model
from vlprm.schema import Aggregation, Problem, Step
from vlprm.scoring.aggregate import AGGREGATIONS, aggregated
from vlprm.scoring.tree import score
from vlprm.steps import split_steps

log = logging.getLogger(__name__)

Scorable = tuple[Problem, list[Step]]


def step_reward(
    checkpoint: str | Path, aggregation: Aggregation | None = None, device: str = "auto", dtype: str = "float32"
) -> Callable[..., list[float | None]]:
    """A function `(prompts, completions, **columns)` -> one reward per completion: the probabilities that its steps are
    correct, aggregated by `aggregation` (None: the checkpoint's rule).

    Prompts and completions are texts or lists of messages. Images are in the prompt's messages, or in a column
    `images` (lists) or `image`, as PIL images, bytes, or dicts of bytes. A completion is split into steps at blank
    lines. The reward is None if there is nothing to score: an empty completion, tool calls, several turns, or a missing
    or unreadable image. Their number and the first cause are logged.

    If several processes train, give each its own device, such as `cuda:1`. UserError for an unknown folder, rule or
    device.
    """
    if aggregation is not None and aggregation not in AGGREGATIONS:
        raise UserError(f"unknown aggregation {aggregation!r}; give one of {', '.join(AGGREGATIONS)}")
    loaded = load_reward_model(checkpoint, *placement(device, dtype))
    rule = aggregation or loaded.config.aggregation

    def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        solutions = _solutions(loaded.inputs, prompts, completions, _images(columns, len(prompts)))
        rewards = iter(score(loaded, [solution for solution in solutions if solution is not None]))
        return [None if solution is None else aggregated(next(rewards), rule) for solution in solutions]

    reward.__name__ = f"step_reward_{rule}"  # the name in TRL's logs
    return reward


def _solutions(
    inputs: InputBuilder, prompts: Sequence[Any], completions: Sequence[Any], images: Sequence[list[Any]]
) -> list[Scorable | None]:
    found: list[Scorable | None] = []
    errors: list[ValueError] = []
    for prompt, completion, own in zip(prompts, completions, images, strict=True):
        try:
            found.append((_problem(inputs, prompt, own), _steps(completion)))
        except ValueError as error:
            errors.append(error)
            found.append(None)
    if errors:
        log.warning("%d of %d completions have no reward; the first: %s", len(errors), len(found), errors[0])
    return found


def _problem(inputs: InputBuilder, prompt: Any, own: list[Any]) -> Problem:
    question, marks = question_of(prompt)
    problem = Problem("", "trl", question, tuple(_file(image) for image in ordered_images(marks, own)), None, "word")
    inputs.prompt(problem)  # render and cache it here, so that a prompt that fails does not stop the others
    return problem


def _steps(completion: Any) -> list[Step]:
    if not isinstance(completion, str):
        if not (isinstance(completion, list) and len(completion) == 1 and isinstance(completion[0], dict)):
            raise RecordError("completion_turns", "its completion is not a single turn; a reward model reads one turn")
        completion = text_of(completion[0].get("content"))
    if not completion.strip():
        raise RecordError("no_steps", "its completion is empty; a reward needs a step")
    return split_steps(completion)


def _images(columns: dict[str, Any], rows: int) -> list[list[Any]]:
    column = columns.get("images") or columns.get("image") or [None] * rows
    return [as_list(value) for value in column]


def _file(image: Any) -> bytes:
    if isinstance(image, Image.Image):
        return encoded(image)
    data = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(data, bytes):
        raise RecordError("image_missing", f"its image is a {type(image).__name__}; give a PIL image, or its bytes")
    return data
