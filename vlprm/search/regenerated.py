"""Cut and regenerate (Perceval, arXiv 2604.24583): solutions are cut before the first step that the reward model calls
wrong, and the policy writes on from there. Perceval cuts before a wrong claim that its verifier lists; here it is the
step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vlprm.schema import Step
from vlprm.search.attempt import Attempt, ScoredSolution
from vlprm.search.sampled import drawn

THRESHOLD = 0.5  # a step with a lower reward is called wrong


async def regenerated(attempt: Attempt) -> list[ScoredSolution]:
    """Return `n` candidates, or fewer if candidates without a wrong step are kept as they are. With several rounds,
    each round cuts the candidates of the previous one. Under a budget, each candidate is sampled and cut before the
    next one is. The tokens of cut steps count, and so do those of the prefixes that are read again."""
    config = attempt.config
    firsts = math.ceil(config.n / (config.rounds + 1))
    if not config.budget:
        return await _and_cut(attempt, await attempt.scored(await drawn(attempt, firsts)), config.n)
    pool: list[ScoredSolution] = []
    for _ in range(firsts):
        if not attempt.affords(1):
            break
        first = await attempt.scored(await attempt.continued([()]))
        pool += await _and_cut(attempt, first, config.n - len(pool))
    return pool


async def _and_cut(attempt: Attempt, latest: list[ScoredSolution], n: int) -> list[ScoredSolution]:
    """These candidates and what is regenerated from them, `n` at most and as far as the budget allows."""
    pool = list(latest)
    for _ in range(attempt.config.rounds):
        cut = [before_wrong(scored) for scored in latest[: n - len(pool)]]
        beginnings = [steps or () for steps in cut if steps is not None or attempt.config.unfaulted == "resample"]
        if not beginnings or not attempt.affords(len(beginnings)):
            break
        latest = await attempt.scored(await attempt.continued(beginnings))
        pool += latest
    return pool


def before_wrong(scored: ScoredSolution) -> Sequence[Step] | None:
    """The steps before the first one that is called wrong; None if there is none, or if a step before it has no
    score."""
    for k, score in enumerate(scored.scores):
        if score is None:
            return None
        if score.correct < THRESHOLD:
            return scored.solution.steps[:k]
    return None
