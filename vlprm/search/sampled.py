"""Methods that sample full solutions: draw a pool, score it if the method needs scores, and choose from it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from vlprm.answers import choices_of, merged
from vlprm.schema import Problem, Solution
from vlprm.search.attempt import Attempt, ScoredSolution

DECIDED = 0.95  # posterior probability at which a vote is decided
ROUND = 2  # candidates drawn between two checks of a vote


async def one(attempt: Attempt) -> list[ScoredSolution]:
    """One solution."""
    return [ScoredSolution(solution) for solution in await attempt.sampled(1)]


async def unscored(attempt: Attempt) -> list[ScoredSolution]:
    """`n` solutions without scores."""
    return [ScoredSolution(solution) for solution in await drawn(attempt, attempt.config.n)]


async def scored(attempt: Attempt) -> list[ScoredSolution]:
    """`n` solutions with step scores."""
    return await attempt.scored(await drawn(attempt, attempt.config.n), again=False)


async def adaptive(attempt: Attempt) -> list[ScoredSolution]:
    """Draw candidates until the vote is decided, at most `n`: the posterior probability (uniform prior) that the
    leading answer beats the second is above DECIDED (adaptive consistency, Aggarwal et al., arXiv 2305.11860)."""
    pool: list[Solution] = []
    while len(pool) < attempt.config.n and not is_decided(_alike(pool, attempt.problem)):
        count = min(ROUND, attempt.config.n - len(pool))
        if not attempt.affords(count):
            break
        pool += await attempt.continued([()] * count)
    return [ScoredSolution(solution) for solution in pool]


async def drawn(attempt: Attempt, n: int) -> list[Solution]:
    """`n` candidates of the common pool; under a budget, one by one while it pays for another."""
    if not attempt.config.budget:
        return await attempt.sampled(n)
    pool: list[Solution] = []
    while len(pool) < n and attempt.affords(1):
        pool += await attempt.continued([()])
    return pool


def _alike(pool: list[Solution], problem: Problem) -> list[Solution]:
    """The solutions with equal answers written alike."""
    answers = merged([s.answer for s in pool], problem.answer_type, choices_of(problem))
    return [replace(solution, answer=answer) for solution, answer in zip(pool, answers, strict=True)]


def is_decided(pool: list[Solution]) -> bool:
    """Whether more candidates are unlikely to change the vote."""
    votes = [count for _, count in Counter(s.answer for s in pool if s.answer is not None).most_common(2)]
    first, second = [*votes, 0, 0][:2]
    tosses = first + second + 1
    # P(p > 1/2) for p ~ Beta(first + 1, second + 1) is the chance of at most `first` heads in `tosses` fair tosses.
    chance: float = sum(math.comb(tosses, k) for k in range(first + 1)) / 2**tosses
    return chance > DECIDED
