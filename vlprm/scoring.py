"""Score solutions step by step, and turn step rewards into a solution's.

    checkpoint = load_reward_model("runs/demo/prm")
    rewards = score(checkpoint, [(problem, solution.steps)])[0]      # P(correct) a step

A step's reward is the probability of `correct` at its last token; a zoom's, after its crop was seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from vlprm.backbones import Checkpoint
from vlprm.inputs import Row, collate_steps
from vlprm.schema import Aggregation, Problem, Step
from vlprm.steps import SEPARATOR

MAX_TOKENS = 16_384  # a batch's padded size


@dataclass(frozen=True)
class StepScore:
    """Probabilities of a step being correct, a perception error, a reasoning error: they add up to 1. And, where the
    model reads it, `surprise`: the nats of the step's least likely token under the backbone's LM head."""

    correct: float
    perception: float
    reasoning: float
    surprise: float | None = None


@torch.inference_mode()
def score_steps(
    checkpoint: Checkpoint, solutions: Sequence[tuple[Problem, Sequence[Step]]], separator: str = SEPARATOR
) -> list[list[StepScore]]:
    """One list of scores a solution, one score a step. A solution of no steps has no scores. ValueError where the model
    gives none: a NaN would rank like any number."""
    inputs = checkpoint.inputs
    rows = [inputs.row(problem, steps, separator=separator) for problem, steps in solutions]
    scores: list[list[StepScore]] = [[] for _ in rows]
    for group in _token_batches(rows):
        batch = collate_steps([rows[i] for i in group], inputs.pad_id)
        output = checkpoint.model(**{k: v.to(checkpoint.model.device) for k, v in batch.items()})
        scores_BS3 = output.logits.float().softmax(-1)
        if not scores_BS3.isfinite().all():
            raise ValueError("the reward model's scores are not finite numbers; train it again, or copy it again")
        surprises_BS = None if output.surprise is None else output.surprise[..., 0].tolist()
        for b, (i, scores_S3) in enumerate(zip(group, scores_BS3.tolist(), strict=True)):
            steps = len(rows[i].step_ends)
            surprises = surprises_BS[b][:steps] if surprises_BS else [None] * steps
            scores[i] = [StepScore(p, q, r, nats) for (p, q, r), nats in zip(scores_S3, surprises, strict=False)]
    return scores


def score(checkpoint: Checkpoint, solutions: Sequence[tuple[Problem, Sequence[Step]]]) -> list[list[float]]:
    """Rewards: the probability of correct of each step of each solution."""
    return [[s.correct for s in scores] for scores in score_steps(checkpoint, solutions)]


def score_whole(checkpoint: Checkpoint, solutions: Sequence[tuple[Problem, Sequence[Step]]]) -> list[float | None]:
    """One reward a solution, read as a single step: its paragraphs follow without a blank line, and the score stands
    at the end (VL-PRM's one-shot reading, arXiv 2509.23250). None for a solution of no steps."""
    return [scores[-1].correct if scores else None for scores in score_steps(checkpoint, solutions, separator="\n")]


def _product(rewards: Sequence[float]) -> float:
    return math.prod(rewards)


def _mean(rewards: Sequence[float]) -> float:
    return sum(rewards) / len(rewards)


def _mean_odds(rewards: Sequence[float]) -> float:
    """Mean odds p / (1 - p), clipped where the model is certain."""
    return _mean([min(p, 1 - 1e-6) / (1 - min(p, 1 - 1e-6)) for p in rewards])


AGGREGATIONS: dict[Aggregation, Callable[[Sequence[float]], float]] = {
    "last": lambda rewards: rewards[-1],
    "min": min,
    "mean": _mean,
    "product": _product,
    "mean_odds": _mean_odds,
}


def _token_batches(rows: Sequence[Row]) -> list[list[int]]:
    """Indices of rows, shortest first, in batches whose padded size stays under `MAX_TOKENS`."""
    batches: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i].ids)):
        if not rows[i].step_ends:
            continue
        if batches and (len(batches[-1]) + 1) * len(rows[i].ids) <= MAX_TOKENS:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
