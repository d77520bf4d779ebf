"""Warnings about training configs that run, and probably not as intended."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from train.reward.config import PrmConfig
from train.reward.trees import Tree

log = logging.getLogger(__name__)

FEW = 50  # optimizer steps; the learning rate rises during the first and falls during the others


def on_few_steps(steps: int, config: PrmConfig) -> None:
    """Warn if training has too few optimizer steps to move the weights."""
    if steps < FEW:
        log.warning(
            "training has only %d optimizer steps; for at least %d, lower rows.batch_tokens (now %d) or accumulate (now"
            " %d), or raise epochs (now %d)",
            steps, FEW, config.rows.batch_tokens, config.accumulate, config.epochs,
        )  # fmt: skip


def on_untagged_steps(trees: Sequence[Tree], template: str) -> None:
    """Warn if the prompt asks for tagged steps and most steps have no tag."""
    kinds = [step.kind for tree in trees for path in tree for step in path.steps]
    untagged = kinds.count("other")
    if template.startswith("tagged_steps") and untagged > len(kinds) / 2:
        log.warning(
            "%d of %d steps have no tag such as [reasoning], and the prompt template %s asks for tags; give"
            " --prompt_template plain@1 to train with the question alone",
            untagged, len(kinds), template,
        )  # fmt: skip
