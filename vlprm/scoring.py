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
from vlprm.packing import Row, padded_batches
from vlprm.schema import Aggregation, Problem, Step
from vlprm.steps import SEPARATOR

MAX_TOKENS = 16_384  # a batch's padded size


@dataclass(frozen=True)
class StepScore:
    """Probabilities of a step being correct, a perception error, a reasoning error: they add up to 1. A verdict head
    does not tell errors apart. `surprise` is, where the model reads it, the nats of the step's least likely token under
    the backbone's LM head."""

    correct: float
    perception: float | None
    reasoning: float | None
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
    scored = [i for i, row in enumerate(rows) if row.step_ends]
    for group in padded_batches([len(rows[i].ids) for i in scored], MAX_TOKENS):
        batch = [scored[k] for k in group]
        for i, of_row in zip(batch, _scores_of(checkpoint, [rows[i] for i in batch]), strict=True):
            scores[i] = of_row
    return scores


def _scores_of(checkpoint: Checkpoint, rows: Sequence[Row]) -> list[list[StepScore]]:
    model = checkpoint.model
    output = model(**{k: v.to(model.device) for k, v in checkpoint.inputs.step_batch(rows).items()})
    scores_BSO = output.logits.float().softmax(-1)
    if not scores_BSO.isfinite().all():
        raise ValueError("the reward model's scores are not finite numbers; train it again, or copy it again")
    if checkpoint.profile.head == "verdict":
        return [[StepScore(p, None, None) for p, _ in scores[: len(row.step_ends)]]
                for row, scores in zip(rows, scores_BSO.tolist(), strict=True)]  # fmt: skip
    nats_BS = [[None] * len(s) for s in scores_BSO] if output.surprise is None else output.surprise[..., 0].tolist()
    return [
        [StepScore(p, q, r, nats) for (p, q, r), nats in zip(scores, own, strict=True)][: len(row.step_ends)]
        for row, scores, own in zip(rows, scores_BSO.tolist(), nats_BS, strict=True)
    ]


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
