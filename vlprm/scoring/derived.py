"""Rewards that are computed from scores: without training, from the verdicts of any vision-language model or from its
likelihood of a step; or from the value and the standard deviation that a reward model gives beside `correct`."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

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


def valued(scores: Sequence[StepScore | None], weight: float) -> Scores:
    """(1 - weight) of `correct` and `weight` of the value as the reward: a weight of 1 ranks by the value alone, as OVM
    and AlphaMath do (arXiv 2311.09724, 2405.03553), one of 1 / (1 + beta) as BiRM's v + beta r (arXiv 2503.04618)."""
    return [
        None
        if score is None or score.value is None
        else replace(
            score,
            correct=(1 - weight) * score.correct + weight * score.value,
            sd=None if score.sd is None else weight * score.sd,
        )
        for score in scores
    ]


def cautious(scores: Sequence[StepScore | None], risk: float) -> Scores:
    """The reward less `risk` standard deviations (BetaPRM's mu - lambda sigma, arXiv 2605.15529); may be negative."""
    return [
        None if score is None or score.sd is None else replace(score, correct=score.correct - risk * score.sd)
        for score in scores
    ]
