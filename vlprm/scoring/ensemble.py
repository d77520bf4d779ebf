"""An ensemble of scorers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from statistics import pstdev

from vlprm.policy import all_answers
from vlprm.schema import Problem, StepScore
from vlprm.scoring import Scored, Scorer, Solutions


class Ensemble:
    """Several scorers; a step's score is the mean over them, with their spread. It has a value or a standard deviation
    if all of them give one.

    All steps of one call are scored by the same scorers, so that no solution ranks higher because a scorer failed on
    it: those that score the most steps, and the same ones.
    """

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        self.scorers = scorers

    async def score(self, problem: Problem, solutions: Solutions, attempt: Hashable = None) -> Scored:
        """Score with every scorer; tokens are summed. See `Scorer.score`."""
        found = await all_answers(scorer.score(problem, solutions, attempt) for scorer in self.scorers)
        covered = [[score is not None for steps in scored.steps for score in steps] for scored in found]
        most = max(covered, key=sum)
        used = [scored.steps for scored, coverage in zip(found, covered, strict=True) if coverage == most]
        steps = [
            [_mean(of_step) for of_step in zip(*of_solution, strict=True)] for of_solution in zip(*used, strict=True)
        ]
        return Scored(steps, [sum(of_solution) for of_solution in zip(*(s.read for s in found), strict=True)])

    def forget(self, problem: Problem, attempt: Hashable = None) -> None:
        """Drop the attempt's cache of every scorer."""
        for scorer in self.scorers:
            scorer.forget(problem, attempt)


def _mean(scores: Sequence[StepScore | None]) -> StepScore | None:
    known = [score for score in scores if score is not None]
    if not known:
        return None
    kinds = [(s.perception, s.reasoning) for s in known if s.perception is not None and s.reasoning is not None]
    count = len(known)
    correct = sum(s.correct for s in known) / count
    more = {
        "spread": pstdev(s.correct for s in known),
        "value": _mean_of([s.value for s in known]),
        "sd": _mean_of([s.sd for s in known]),
    }
    if len(kinds) < count:
        return StepScore(correct, None, None, **more)
    return StepScore(correct, sum(p for p, _ in kinds) / count, sum(r for _, r in kinds) / count, **more)


def _mean_of(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return sum(known) / len(known) if len(known) == len(numbers) else None
