"""Refined Best-of-N (GM-PRM, arXiv 2508.04088, section 3): half of the candidates are sampled, a critic says of each
which step is the first wrong one and what it should have been, and the policy goes on from there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from vlprm.policy.critique import Critique
from vlprm.schema import Solution, Step
from vlprm.search.attempt import Attempt, ScoredSolution
from vlprm.search.sampled import drawn


async def refined(attempt: Attempt) -> list[ScoredSolution]:
    """`n` candidates, or fewer where those without a fault are kept as they are. With several rounds, each round's
    candidates are what the next one corrects. Under a budget they are drawn and corrected one by one."""
    config = attempt.config
    latest = await drawn(attempt, math.ceil(config.n / (config.rounds + 1)))
    pool = list(latest)
    for _ in range(config.rounds):
        waiting, latest = latest[: config.n - len(pool)], []
        at_once = 1 if config.budget else max(1, len(waiting))
        for i in range(0, len(waiting), at_once):
            latest += await _corrections(attempt, waiting[i : i + at_once])
        pool += latest
    return await attempt.scored(pool)


async def _corrections(attempt: Attempt, solutions: Sequence[Solution]) -> list[Solution]:
    """What the policy makes of the corrected beginnings of solutions, as far as the budget goes."""
    if not attempt.may_go_on:
        return []
    critiques = await attempt.criticised(solutions)
    beginnings = [corrected(s, c) for s, c in zip(solutions, critiques, strict=True)]
    if attempt.config.unfaulted == "keep":
        beginnings = [steps for steps in beginnings if steps]
    return await attempt.continued(beginnings) if attempt.may_go_on else []


def corrected(solution: Solution, critique: Critique | None) -> Sequence[Step]:
    """What the policy goes on from: the steps before the first wrong one, and that one as it should be. Nothing, which
    is to begin anew, where no step is found wrong or the critique cannot be read. A zoom's correction is left out: what
    it shows would have to be seen first, so the policy goes on from before it."""
    if critique is None or critique.first_wrong is None or critique.corrected is None:
        return ()
    before = solution.steps[: critique.first_wrong]
    return before if critique.corrected.kind == "zoom" else (*before, critique.corrected)
