"""Configs of `train.builtin` and of policy learning."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from vlprm.builtin.size import Size
from vlprm.model.checkpoint_config import Part
from vlprm.tasks import TASKS


@dataclass(frozen=True)
class BuiltinConfig:
    """Train the built-in policy or backbone.

    Args:
        run: checkpoint folder to write.
        start_from: checkpoint that provides the tokenizer, and the weights whose names and shapes match.
        tasks: task names or module paths; a name given twice gets a double share of the problems.
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

    run: Path
    start_from: str | None = None
    tasks: tuple[str, ...] = tuple(TASKS)
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


@dataclass(frozen=True)
class PairsConfig:
    """Make preference pairs from the siblings of search trees.

    A pair is two next steps of one prefix. Siblings are compared by their share of right rollouts (a solution's last
    step: by its answer), a judge's verdicts, or their fused labels.

    Args:
        dataset: parquet file of data_synth.label.
        run: run folder to write; the pairs are its `pairs.parquet`.
        by: compare siblings by value, judge or label.
        better: the better step has at least this value.
        worse: the worse step has at most this value.
        format: rows of whole trees, which train.dpo reads (vlprm), or one row per pair with TRL's columns (trl).
        policy: format=trl: checkpoint whose prompt and crops the rows show.
    """

    dataset: Path
    run: Path
    by: Literal["value", "judge", "label"] = "value"
    better: ClosedUnitInterval = 0.75
    worse: ClosedUnitInterval = 0.0
    format: Literal["vlprm", "trl"] = "vlprm"
    policy: str = "builtin/policy"


@dataclass(frozen=True, kw_only=True)
class PolicyTrainingConfig:
    """Training of a policy on stored solutions.

    Args:
        policy: checkpoint folder of the policy, or builtin/policy.
        freeze: parts of the model that are not trained: vision, projector, text.
        lora_rank: rank of LoRA adapters on the text layers, merged into the saved policy; 0 trains without adapters.
        epochs: passes over the data.
        batch_tokens: maximum tokens per device batch, padding included; a longer row is a batch of its own.
        accumulate: batches per device in one optimizer step.
        learning_rate: peak learning rate.
        schedule: decay of the learning rate after warm-up.
        warmup: fraction of the optimizer steps used for learning rate warm-up.
        checkpointing: recompute activations in the backward pass, to save memory.
        bfloat16: train in bfloat16 mixed precision.
        checkpoint_every: optimizer steps between checkpoints.
        report_to: tracker that receives metrics in addition to metrics.jsonl.
        seed: random seed of the order of the rows and of LoRA weights.
    """

    policy: str = "builtin/policy"
    freeze: tuple[Part, ...] = ("vision",)
    lora_rank: NonNegativeInt = 0
    epochs: PositiveInt = 1
    batch_tokens: PositiveInt = 4096
    accumulate: PositiveInt = 1
    learning_rate: PositiveFloat = 1e-6
    schedule: Literal["linear", "cosine"] = "cosine"
    warmup: ClosedUnitInterval = 0.1
    checkpointing: bool = False
    bfloat16: bool = False
    checkpoint_every: PositiveInt = 50
    report_to: Literal["none", "wandb", "trackio", "tensorboard"] = "none"
    seed: int = 0


@dataclass(frozen=True)
class SftConfig(PolicyTrainingConfig):
    """Train a policy on right solutions, from a dataset, a pool, or the drawn tasks' own solvers.

    Args:
        run: checkpoint folder to write.
        dataset: parquet file of data_synth.label; wrong steps of its right solutions carry no loss.
        pool: run folder of eval.run, whose right candidates are learnt.
        tasks: drawn tasks of the pool, or of the solved problems.
        solved: number of training problems of the tasks, with the solutions of the tasks' own solvers.
        per_problem: maximum number of solutions per problem.
    """

    run: Path
    dataset: Path | None = None
    pool: Path | None = None
    tasks: tuple[str, ...] = tuple(TASKS)
    solved: NonNegativeInt = 0
    per_problem: PositiveInt = 4


@dataclass(frozen=True)
class DpoConfig(PolicyTrainingConfig):
    """Train a policy on pairs of next steps (step-wise DPO).

    Args:
        pairs: parquet file of train.pairs.
        run: checkpoint folder to write.
        beta: strength of the tie to the reference, which is the policy before training.
        nll: weight of the negative log-likelihood of the better steps, per token.
    """

    pairs: Path
    run: Path
    beta: PositiveFloat = 0.3
    nll: NonNegativeFloat = 0.0
