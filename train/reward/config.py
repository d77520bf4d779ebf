"""Configs of `train.prm` and `train.merge`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from vlprm.data.ablation import History, Images, Words
from vlprm.model.attention import Attention
from vlprm.model.checkpoint_config import BETA, Bits, CheckpointConfig, Head, Part
from vlprm.schema import Aggregation


@dataclass(frozen=True)
class RowsConfig:
    """Training rows and batches.

    Args:
        of: one row per solution (paths), or one per problem with shared prefixes stored once (trees).
        max_paths_per_tree: maximum number of solutions per problem; if a judge read them, only judged ones.
        after_first_error: steps after a solution's first wrong step: drop them (stop), keep them as context without
            loss (mask), or train on them too (keep).
        uncertain: steps with a target between these two values stay as context without loss.
        words: what is read of a step: all (kept), numbers, operators and names alone (removed), or the other words
            alone (only).
        history: read the steps before a step (kept), or each step alone after the prompt (removed).
        images: read the images and the crops (kept), or the words alone (removed).
        mixed: use only problems with both right and wrong solutions.
        solved: use only problems whose share of right solutions, among those with a result, is from the first to the
            second number.
        distinct: of problems with the same images and the same words, use only the first.
        batch_tokens: maximum tokens per device batch, padding included; a longer row is a batch of its own.
        longest: maximum tokens per row.
        over_long: what to do with a longer row: stop the run (refuse), or skip and count it (drop).
    """

    of: Literal["paths", "trees"] = "trees"
    max_paths_per_tree: PositiveInt = 8
    after_first_error: Literal["stop", "mask", "keep"] = "keep"
    uncertain: tuple[ClosedUnitInterval, ClosedUnitInterval] | None = None
    words: Words = "kept"
    history: History = "kept"
    images: Images = "kept"
    mixed: bool = False
    solved: tuple[ClosedUnitInterval, ClosedUnitInterval] | None = None
    distinct: bool = False
    batch_tokens: PositiveInt = 4096
    longest: PositiveInt = 16_384
    over_long: Literal["refuse", "drop"] = "refuse"


@dataclass(frozen=True)
class LossConfig:
    """Labels, weights and terms of the loss.

    Args:
        labels: training signal of a step: its target (soft), its target thresholded to 0 or 1 (hard), or its count of
            right rollouts with a Beta-Binomial likelihood (counts); or, for a solution's last step alone, whether the
            answer is right (outcome).
        threshold: a step is wrong if its target is at most this value; used by hard labels, after_first_error, weights,
            pairs and critiques. Default: by fusion rule: Monte Carlo values are wrong at 0, relative ones below 0.8,
            others below 0.5.
        concentration: counts and the value: concentration of the Beta distribution around the prediction, in rollouts,
            or learned, per step, by a further output of the step head.
        evidence: weight of the penalty on a learned concentration where the prediction misses the share of right
            rollouts.
        error_kinds: train the head to tell perception errors from reasoning errors; otherwise only right from wrong.
        wrong_weight: weight of a wrong step; a correct step has weight 1.
        balance: give correct and wrong steps equal total weight within each question type, before wrong_weight.
        value: weight of the likelihood of rollout counts under a further output of the step head, the value (0: no such
            output).
        ranks: weight of PQM's loss along a solution: the reward rises over its correct steps, and is lower at its first
            error.
        margin: ranks: by how much the log-odds of an error should be lower.
        siblings: weight of the pairwise loss between a correct and a wrong step after the same prefix.
        candidates: weight of the pairwise loss between right and wrong solutions of a problem.
        steps: weight of the step loss; 0 trains on critiques alone.
        critique: weight of the language-modelling loss on critiques, written by the LM head.
        critiques: made from labels and corrections (labels), or also with a judge's reasons, of solutions where the
            judge agrees with each label up to the first wrong step (judge).
        reasons: weight of a critique's reasons; its verdict and correction have weight 1.
        beta: implicit head: log-odds per nat of the log-ratio to the reference.
        vocabulary: verdict head: normalise verdict probabilities over the whole vocabulary, not over the two verdicts.
    """

    labels: Literal["soft", "hard", "counts", "outcome"] = "soft"
    threshold: ClosedUnitInterval | None = None
    concentration: PositiveFloat | Literal["learned"] = 10.0
    evidence: NonNegativeFloat = 0.0
    error_kinds: bool = True
    wrong_weight: PositiveFloat = 1.0
    balance: bool = False
    value: NonNegativeFloat = 0.0
    ranks: NonNegativeFloat = 0.0
    margin: NonNegativeFloat = 4.0
    siblings: NonNegativeFloat = 0.0
    candidates: NonNegativeFloat = 0.0
    steps: NonNegativeFloat = 1.0
    critique: NonNegativeFloat = 0.0
    critiques: Literal["labels", "judge"] = "labels"
    reasons: NonNegativeFloat = 1.0
    beta: PositiveFloat = BETA
    vocabulary: bool = False

    @property
    def reads_labels(self) -> bool:
        """Whether a term learns from the labels of single steps."""
        return bool(self.steps or self.siblings or self.value or self.ranks)

    @property
    def extra_outputs(self) -> tuple[str, ...]:
        """The outputs of the step head that are learnt beside the classes."""
        learned = {"value": self.value > 0, "concentration": self.concentration == "learned"}
        return tuple(name for name, is_learned in learned.items() if is_learned)


@dataclass(frozen=True)
class PrmConfig:
    """Train a step-reward model.

    Args:
        dataset: parquet file of data_synth.label or data_synth.convert, or a file in TRL's stepwise format.
        run: checkpoint folder to write.
        backbone: checkpoint folder of the backbone, or builtin/backbone.
        head: new linear layer at the last token of each step (step), a verdict token from the LM head (verdict), or the
            log-ratio of what is written to the backbone as it was before training (implicit).
        verdicts: verdict head: the two tokens for correct and wrong.
        surprise: step head: also read how unlikely the step was under the backbone's LM head.
        lookback: step head: also read which share of attention each text layer gives to images while a step is written.
        freeze: parts of the model that are not trained: vision, projector, text.
        lora_rank: rank of LoRA adapters on the text layers; only they and a step head are trained; 0 trains without
            adapters.
        bits: quantise the frozen text layers to 4 or 8 bits (LoRA only).
        attention: attention kernels of the vision tower and of the text layers.
        min_pixels: smaller images are enlarged to at least this many pixels; default: the backbone's limit.
        max_pixels: larger images are shrunk to at most this many pixels; default: the backbone's limit.
        prompt_template: the question alone (plain@1), or with a request for tagged steps (tagged_steps@1); default: the
            backbone's template.
        critique_template: question and form of critiques: verdict first (plain_critique@2, critique@2) or after the
            reasons (plain_critique@3, critique@3); those with `plain` ask no question. Default: plain_critique@2 with
            plain@1, else critique@3.
        rows: training rows and batches.
        loss: labels, weights and terms of the loss.
        also: more datasets, each with the number of passes over it in one epoch; 0.5 takes half of its rows, other ones
            in each epoch.
        epochs: passes over the data.
        accumulate: batches per device in one optimizer step.
        learning_rate: peak learning rate; the default suits all weights of a backbone of 7 billion parameters, adapters
            take about ten times as much.
        vision_learning_rate: peak learning rate of a vision tower that is trained; default: learning_rate.
        head_learning_rate: peak learning rate of the step head, which is trained from scratch.
        schedule: decay of the learning rate after warm-up.
        warmup: fraction of the optimizer steps used for learning rate warm-up.
        weight_decay: weight decay of AdamW.
        beta2: decay of AdamW's second moments.
        checkpointing: recompute activations in the backward pass, to save memory.
        bfloat16: train in bfloat16 mixed precision.
        held_out: fraction of problems held out for metrics during training; they share no image with the others; 0
            trains on all.
        checkpoint_every: optimizer steps between checkpoints (and held-out metrics).
        workers: processes per device that read rows and process images ahead of it; 0 does so between its steps.
        dry_run: print the plan (trained parameters, batches, memory per GPU, computation, a decoded row) and stop;
            reads no weights.
        report_to: tracker that receives metrics in addition to metrics.jsonl.
        aggregation: default rule that turns step rewards into a solution's reward, stored in the checkpoint.
        seed: random seed of the held-out split, the order of the rows and LoRA weights.
    """

    dataset: Path
    run: Path
    backbone: str = "builtin/backbone"
    head: Head = "step"
    verdicts: tuple[str, str] = CheckpointConfig.verdicts
    surprise: bool = False
    lookback: bool = False
    freeze: tuple[Part, ...] = ("vision",)
    lora_rank: NonNegativeInt = 0
    bits: Bits = 16
    attention: Attention = Attention()
    min_pixels: PositiveInt | None = None
    max_pixels: PositiveInt | None = None
    prompt_template: str | None = None
    critique_template: str | None = None
    rows: RowsConfig = RowsConfig()
    loss: LossConfig = LossConfig()
    also: dict[str, PositiveFloat] = field(default_factory=dict)
    epochs: PositiveInt = 1
    accumulate: PositiveInt = 1
    learning_rate: PositiveFloat = 1e-5
    vision_learning_rate: PositiveFloat | None = None
    head_learning_rate: PositiveFloat = 1e-4
    schedule: Literal["linear", "cosine"] = "linear"
    warmup: ClosedUnitInterval = 0.1
    weight_decay: NonNegativeFloat = 0.01
    beta2: ClosedUnitInterval = 0.999
    checkpointing: bool = False
    bfloat16: bool = False
    held_out: ClosedUnitInterval = 0.05
    checkpoint_every: PositiveInt = 50
    workers: NonNegativeInt = 2
    dry_run: bool = False
    report_to: Literal["none", "wandb", "trackio", "tensorboard"] = "none"
    aggregation: Aggregation = "min"
    seed: int = 0

    @property
    def datasets(self) -> list[Path]:
        """All files that are trained on."""
        return [self.dataset, *map(Path, self.also)]


@dataclass(frozen=True)
class MergeConfig:
    """Merge LoRA adapters into their backbone, or the shards of a checkpoint.

    Args:
        reward_model: checkpoint folder of a reward model trained with lora_rank, or checkpoint-N in the folder of a
            sharded run.
        run: checkpoint folder to write.
    """

    reward_model: Path
    run: Path
