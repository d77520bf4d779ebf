"""What a run says about its data and its config: how labels are read, and what is probably not intended."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from train.reward.config import PrmConfig
from vlprm.labels.fusion import wrong_below

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


def on_untagged_steps(untagged: int, steps: int, template: str) -> None:
    """Warn if the prompt asks for tagged steps and most steps have no tag."""
    if template.startswith("tagged_steps") and untagged > steps / 2:
        log.warning(
            "%d of %d steps have no tag such as [reasoning], and the prompt template %s asks for tags; give"
            " --prompt_template plain@1 to train with the question alone",
            untagged, steps, template,
        )  # fmt: skip


def on_wrong_steps(rules: Sequence[str], threshold: float | None) -> None:
    """Say which targets call a step wrong, by the rules of the labels."""
    if threshold is not None:
        log.info("a step is wrong if its target is at most %g (loss.threshold)", threshold)
        return
    for bound in sorted({wrong_below(rule) for rule in rules}):
        of = ", ".join(rule for rule in rules if wrong_below(rule) == bound)
        said = f"below {bound:g}" if bound else "0, as these are Monte Carlo values"
        log.info("a step with a label of %s is wrong if its target is %s", of, said)
