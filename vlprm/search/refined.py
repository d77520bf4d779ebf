"""Refined Best-of-N (GM-PRM, arXiv 2508.04088, section 3): half of the candidates are sampled, a critic says of each
which step is the first wrong one and what it should have been, and the policy goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence

from vlprm.critique import Critique
from vlprm.schema import Solution, Step
from vlprm.search.attempt import Attempt, ScoredSolution


async def refined(attempt: Attempt) -> list[ScoredSolution]:
    """`n` candidates, or fewer where those without a fault are kept as they are. With several rounds, each round's
    candidates are what the next one corrects."""
    config = attempt.config
    latest = await attempt.sampled(max(1, config.n // (config.rounds + 1)))
    pool = list(latest)
    for _ in range(config.rounds):
        if not attempt.may_go_on:
            break
        critiques = await attempt.criticised(latest)
        beginnings = [corrected(s, c) for s, c in zip(latest, critiques, strict=True)]
        if config.unfaulted == "keep":
            beginnings = [steps for steps in beginnings if steps]
        latest = await attempt.continued(beginnings[: config.n - len(pool)])
        pool += latest
    return await attempt.scored(pool)


def corrected(solution: Solution, critique: Critique | None) -> Sequence[Step]:
    """What the policy goes on from: the steps before the first wrong one, and that one as it should be. Nothing, which
    is to begin anew, where no step is found wrong or the critique cannot be read. A zoom's correction is left out: what
    it shows would have to be seen first, so the policy goes on from before it."""
    if critique is None or critique.first_wrong is None or critique.corrected is None:
        return ()
    before = solution.steps[: critique.first_wrong]
    return before if critique.corrected.kind == "zoom" else (*before, critique.corrected)
