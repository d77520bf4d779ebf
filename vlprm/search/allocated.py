"""Best-of-N that draws candidates until one is surely the best (Adaptive Computation Allocation of BetaPRM, arXiv
2605.15529): rewards have standard deviations, and further candidates continue from where the closest rival is doubtful.
"""

from __future__ import annotations

from collections.abc import Sequence

from vlprm.errors import UserError
from vlprm.schema import Step, StepScore
from vlprm.search.attempt import Attempt, ScoredSolution
from vlprm.search.sampled import drawn

# As in the paper's code.
FIRST, MORE = 4, 4  # candidates before the first check, and between two
STOP = 0.3  # standard deviations between a reward and its bounds, for the choice
CUT = 2.0  # the same for a step where a rival is cut
DOUBTFUL = 0.5  # a step is cut if its lower bound is below


async def adaptive_best_of_n(attempt: Attempt) -> list[ScoredSolution]:
    """Draw four candidates, then four at a time, `n` at most, until the lower bound of the best is above the upper
    bounds of all others. New ones continue the rival with the highest upper bound from before its first doubtful step.
    UserError if the scores have no standard deviation."""
    n = attempt.config.n
    pool = await attempt.scored(await drawn(attempt, min(FIRST, n)))
    while len(pool) < n and (rival := _rival(attempt, pool)) is not None:
        more = min(MORE, n - len(pool))
        if not attempt.affords(more):
            break
        pool += await attempt.scored(await attempt.continued([sound_beginning(rival)] * more))
    return pool


def _rival(attempt: Attempt, pool: Sequence[ScoredSolution]) -> ScoredSolution | None:
    """The candidate that may be better than the best one; None if there is none."""
    if len(pool) < 2:
        return None
    best = max(range(len(pool)), key=lambda i: attempt.value(pool[i]))
    others = [scored for i, scored in enumerate(pool) if i != best]
    rival = max(others, key=lambda scored: attempt.value(scored) + STOP * _deviation(scored))
    decided = attempt.value(pool[best]) - STOP * _deviation(pool[best])
    return None if decided > attempt.value(rival) + STOP * _deviation(rival) else rival


def _deviation(scored: ScoredSolution) -> float:
    """The mean standard deviation of the steps before the answer."""
    known = [_sd(score) for score in scored.scores if score is not None]
    before = known[:-1] or known
    return sum(before) / len(before) if before else 0.0


def sound_beginning(scored: ScoredSolution) -> Sequence[Step]:
    """The steps before the first one whose lower bound is doubtful, or before the least certain one, if none is. The
    answer is never kept, nor are steps without a score."""
    known: list[StepScore] = []
    for score in scored.scores[:-1]:
        if score is None:
            break
        known.append(score)
    if not known:
        return ()
    doubtful = [k for k, score in enumerate(known) if score.correct - CUT * _sd(score) < DOUBTFUL]
    cut = doubtful[0] if doubtful else max(range(len(known)), key=lambda k: _sd(known[k]))
    return scored.solution.steps[:cut]


def _sd(score: StepScore) -> float:
    if score.sd is None:
        raise UserError(
            "adaptive_best_of_n needs a reward model that gives standard deviations; train one with loss.concentration:"
            " learned, or use best_of_n"
        )
    return score.sd
