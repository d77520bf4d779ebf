"""What `train.prm` and `train.merge` are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from vlprm.model.attention import Attention
from vlprm.model.checkpoint_config import Bits, CheckpointConfig, Head, Part
from vlprm.schema import Aggregation


@dataclass(frozen=True)
class RowsConfig:
    """What is learnt from, and in which batches.

    Args:
        of: a row is a solution (paths) or all solutions of a problem, with what they share once (trees).
        max_paths_per_tree: solutions taken of one problem, and no more than a judge has read of it.
        after_first_error: of a solution's steps after its first wrong one: leave them out (stop), show them without
            targets (mask), or learn from them too (keep).
        mixed: take only problems that have right and wrong solutions.
        batch_tokens: tokens of a device's batch, padding included.
        longest: tokens of a row that is still taken.
        over_long: a longer row stops the run (refuse), or is left out and counted (drop). It is never cut.
    """

    of: Literal["paths", "trees"] = "trees"
    max_paths_per_tree: PositiveInt = 8
    after_first_error: Literal["stop", "mask", "keep"] = "keep"
    mixed: bool = False
    batch_tokens: PositiveInt = 4096
    longest: PositiveInt = 16_384
    over_long: Literal["refuse", "drop"] = "refuse"


@dataclass(frozen=True)
class LossConfig:
    """The loss.

    Args:
        labels: what a step is learnt from: its target as it is (soft), whether that calls it wrong (hard), or its
            counts of right rollouts, as a Beta-Binomial draw (counts).
        threshold: a step whose target is not above it is wrong, be it for hard labels, for what comes after a first
            error, for weights, pairs or critiques. Without one, as the rule of its label says: no right rollout of a
            Monte Carlo value, else below one half.
        concentration: of the Beta distribution around the predicted reward, in rollouts (counts).
        error_kinds: learn to tell errors of perception from errors of reasoning; without it, right from wrong alone.
        wrong_weight: weight of a wrong step, where a correct one has 1.
        balance: within each type of question, give correct and wrong steps the same weight in all, before wrong_weight.
        siblings: weight of the pairwise loss between steps of one prefix, a correct and a wrong one.
        candidates: weight of the pairwise loss between right and wrong solutions of a problem.
        steps: weight of the loss of steps; 0 to learn critiques alone.
        critique: weight of the loss of critiques, which the LM head learns to write.
        vocabulary: a verdict's probability is taken over the whole vocabulary, not over the two verdicts.
    """

    labels: Literal["soft", "hard", "counts"] = "soft"
    threshold: ClosedUnitInterval | None = None
    concentration: PositiveFloat = 10.0
    error_kinds: bool = True
    wrong_weight: PositiveFloat = 1.0
    balance: bool = False
    siblings: NonNegativeFloat = 0.0
    candidates: NonNegativeFloat = 0.0
    steps: NonNegativeFloat = 1.0
    critique: NonNegativeFloat = 0.0
    vocabulary: bool = False


@dataclass(frozen=True)
class PrmConfig:
    """Train a step-reward model.

    Args:
        dataset: parquet file of data_synth.label or data_synth.convert, or a file in TRL's stepwise format.
        run: checkpoint folder to write.
        backbone: checkpoint folder of the backbone, or builtin/backbone.
        head: a linear layer at the end of each step (step), or the LM head's answer after it (verdict).
        verdicts: the tokens of a verdict head that call a step correct and wrong.
        surprise: let a step head read how unlikely a step was to the backbone, beside the state at its end.
        freeze: parts that stay as they are: vision, projector, text.
        lora_rank: of adapters on the text layers, which are then all that is trained beside a step head; 0: none.
        bits: of the text layers' weights while adapters are trained on them.
        attention: by what the vision tower and the text layers attend.
        min_pixels: of an image as it is read, smaller ones being enlarged; without it, the limit of the backbone.
        max_pixels: the same of the largest, larger ones being shrunk.
        rows: what is learnt from, and in which batches.
        loss: the loss.
        epochs: passes over the data.
        accumulate: device steps of an optimizer step.
        learning_rate: its peak.
        head_learning_rate: the same for a step head, which starts from nothing.
        schedule: how the learning rate falls after its warm-up.
        warmup: share of the steps in which it rises.
        weight_decay: of AdamW.
        checkpointing: compute activations again in the backward pass, to save memory.
        bfloat16: train in mixed precision.
        held_out: share of the problems kept for the metrics shown while training; they share no image with the others.
        checkpoint_every: optimizer steps between checkpoints to resume from.
        dry_run: say what would be trained, on what and in how much memory, and stop.
        report_to: where metrics go beside metrics.jsonl: none, wandb, trackio or tensorboard.
        aggregation: the rule that turns step rewards into a solution's, fixed before any result is seen.
        seed: decides the held-out problems and the order of the rows.
    """

    dataset: Path
    run: Path
    backbone: str = "builtin/backbone"
    head: Head = "step"
    verdicts: tuple[str, str] = CheckpointConfig.verdicts
    surprise: bool = False
    freeze: tuple[Part, ...] = ("vision",)
    lora_rank: NonNegativeInt = 0
    bits: Bits = 16
    attention: Attention = Attention()
    min_pixels: PositiveInt | None = None
    max_pixels: PositiveInt | None = None
    rows: RowsConfig = RowsConfig()
    loss: LossConfig = LossConfig()
    epochs: PositiveInt = 1
    accumulate: PositiveInt = 1
    learning_rate: PositiveFloat = 3e-4
    head_learning_rate: PositiveFloat = 3e-3
    schedule: Literal["linear", "cosine"] = "linear"
    warmup: ClosedUnitInterval = 0.1
    weight_decay: NonNegativeFloat = 0.01
    checkpointing: bool = False
    bfloat16: bool = False
    held_out: ClosedUnitInterval = 0.05
    checkpoint_every: PositiveInt = 50
    dry_run: bool = False
    report_to: Literal["none", "wandb", "trackio", "tensorboard"] = "none"
    aggregation: Aggregation = "min"
    seed: int = 0


@dataclass(frozen=True)
class MergeConfig:
    """Merge adapters.

    Args:
        reward_model: folder of a reward model that was trained with lora_rank.
        run: checkpoint folder to write.
    """

    reward_model: Path
    run: Path
