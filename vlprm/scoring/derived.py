"""Rewards without training: from the verdicts of any vision-language model, or from its likelihood of a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

from vlprm.schema import Problem, StepScore
from vlprm.scoring import Scored, Scorer, Solutions

Scores = list[StepScore | None]


class DerivedScorer:
    """The scores of a scorer, turned into others solution by solution."""

    def __init__(self, scorer: Scorer, derived: Callable[[Sequence[StepScore | None]], Scores]) -> None:
        self.scorer, self.derived = scorer, derived

    async def score(self, problem: Problem, solutions: Solutions, attempt: Hashable = None) -> Scored:
        """See `Scorer.score`."""
        found = await self.scorer.score(problem, solutions, attempt)
        return Scored([self.derived(scores) for scores in found.steps], found.read)

    def forget(self, problem: Problem, attempt: Hashable = None) -> None:
        """Drop the attempt's cache."""
        self.scorer.forget(problem, attempt)


def joint(scores: Sequence[StepScore | None]) -> Scores:
    """The probability that no step up to each is wrong. The first error is at step t with probability
    p_1 ... p_(t-1) (1 - p_t), the joint score of that position (uPRM, arXiv 2605.10158); what remains after a step is
    its reward. After a step without a score there is none."""
    found: Scores = []
    so_far: float | None = 1.0
    for score in scores:
        so_far = None if so_far is None or score is None else so_far * score.correct
        found.append(None if so_far is None else StepScore(so_far, None, None))
    return found


def likelihood(scores: Sequence[StepScore | None]) -> Scores:
    """The probability of each step's least likely token."""
    return [
        None if score is None or score.surprise is None else StepScore(math.exp(-score.surprise), None, None)
        for score in scores
    ]
