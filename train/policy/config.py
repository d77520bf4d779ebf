"""Configs of `train.builtin` and of policy learning."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from vlprm.builtin.size import Size
from vlprm.tasks import TASKS


@dataclass(frozen=True)
class BuiltinConfig:
    """Train the built-in policy or backbone.

    Args:
        output_dir: checkpoint folder to write.
        start_from: checkpoint that provides the tokenizer, and the weights whose names and shapes match.
        families: task names or module paths; a name given twice gets a double share of the problems.
        proofread: lessons per problem that correct a wrong draft, in addition to one that solves the problem.
        size: widths and depths of the model.
        vocab_size: maximum size of the tokenizer's vocabulary.
        steps: optimizer steps.
        batch_size: lessons per optimizer step.
        learning_rate: peak learning rate of the warm-up and cosine schedule.
        workers: data loader processes.
        blind_spots: maps a concept to the probability that the teacher confuses it with the most similar one.
        slip_rate: probability that any other claim of the teacher is wrong.
        seed: random seed of the weights, the problems and the teacher's errors.
    """

    output_dir: Path
    start_from: str | None = None
    families: tuple[str, ...] = tuple(TASKS)
    proofread: NonNegativeInt = 0
    size: Size = Size()
    vocab_size: PositiveInt = 512
    steps: PositiveInt = 4000
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 1.2e-3
    workers: NonNegativeInt = 2
    blind_spots: dict[str, ClosedUnitInterval] = field(default_factory=dict)
    slip_rate: ClosedUnitInterval = 0.0
    seed: int = 0


@dataclass(frozen=True)
class PolicyLossConfig:
    """The loss of a policy on trees of its own rollouts.

    Args:
        clip: clip each token's ratio of new to old probability (ppo), clip its weight but keep its gradient (cispo),
            clip one ratio per solution, the geometric mean of its tokens' (sequence), or nothing (none).
        low: ratios below 1 - low are clipped (ppo, sequence).
        high: ratios above 1 + high are clipped (all).
        per: a solution's tokens have one weight in all (path), 1 / length each (constant), or all solutions' tokens
            have equal weights (token).
        length: per=constant: the number of tokens by which each solution's sum is divided.
        kl: weight of the divergence from the reference policy, estimated on the sampled tokens (k3).
        is_cap: largest importance weight of a token whose old log-probability was recomputed after a server sampled it.
    """

    clip: Literal["none", "ppo", "cispo", "sequence"] = "none"
    low: ClosedUnitInterval = 0.2
    high: PositiveFloat = 0.28
    per: Literal["token", "path", "constant"] = "path"
    length: PositiveInt = 200
    kl: NonNegativeFloat = 0.0
    is_cap: PositiveFloat = 2.0
