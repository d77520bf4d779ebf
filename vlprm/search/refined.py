"""Refined Best-of-N (GM-PRM, arXiv 2508.04088, section 3): half of the candidates are sampled, a critic finds and
corrects the first wrong step of each, and the policy continues from the correction."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vlprm.policy.critique import Critique
from vlprm.policy.refinement import put_right
from vlprm.schema import Solution, Step
from vlprm.search.attempt import Attempt, ScoredSolution
from vlprm.search.sampled import drawn


async def refined(attempt: Attempt) -> list[ScoredSolution]:
    """Return `n` candidates, or fewer if candidates without an error are kept as they are. With several rounds, each
    round corrects the candidates of the previous one. Under a budget, each candidate is sampled and corrected before
    the next one is."""
    pool = await (_one_by_one(attempt) if attempt.config.budget else _all_at_once(attempt))
    return await attempt.scored(pool, again=False)


async def _all_at_once(attempt: Attempt) -> list[Solution]:
    config = attempt.config
    latest = await drawn(attempt, math.ceil(config.n / (config.rounds + 1)))
    pool = list(latest)
    for _ in range(config.rounds):
        latest = await _corrections(attempt, latest[: config.n - len(pool)])
        pool += latest
    return pool


async def _one_by_one(attempt: Attempt) -> list[Solution]:
    config, pool, firsts = attempt.config, list[Solution](), 0
    while firsts < math.ceil(config.n / (config.rounds + 1)) and attempt.affords(1):
        latest = await attempt.continued([()])
        firsts += 1
        pool += latest
        for _ in range(min(config.rounds, config.n - len(pool))):
            latest = await _corrections(attempt, latest) if latest and attempt.affords(1, criticised=latest) else []
            pool += latest
    return pool


async def _corrections(attempt: Attempt, solutions: Sequence[Solution]) -> list[Solution]:
    """Continuations of the corrected prefixes of solutions, as far as the budget allows."""
    critiques = await attempt.criticised(solutions)
    beginnings = [corrected(s, c) for s, c in zip(solutions, critiques, strict=True)]
    if attempt.config.unfaulted == "keep":
        beginnings = [steps for steps in beginnings if steps]
    return await attempt.continued(beginnings) if attempt.affords(len(beginnings)) else []


def corrected(solution: Solution, critique: Critique | None) -> Sequence[Step]:
    """The prefix that the policy continues. Empty, to start anew, if no step is found wrong or the critique cannot be
    parsed."""
    if critique is None or critique.first_wrong is None or critique.corrected is None:
        return ()
    return put_right(solution.steps[: critique.first_wrong], critique.corrected)
