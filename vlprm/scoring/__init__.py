"""Scorers give rewards to the steps of solutions: in this process, from a server, from several models, or from
critiques.

    scorer = LocalScorer(load_reward_model("runs/demo/prm"))
    found = await scorer.score(problem, [solution.steps for solution in candidates])

A scorer never raises for what a policy wrote. A failure to score is None (no result), never 0."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from vlprm.schema import Problem, Step, StepScore

Solutions = Sequence[Sequence[Step]]


@dataclass(frozen=True)
class Scored:
    """A list of scores a solution, one a step (None: no result), and how many tokens were read, and written, for each
    solution, beside those for the solutions before it."""

    steps: list[list[StepScore | None]]
    read: list[int]

    @property
    def tokens(self) -> int:
        return sum(self.read)


class Scorer(Protocol):
    async def score(self, problem: Problem, solutions: Solutions, attempt: Hashable = None) -> Scored:
        """The scores of solutions, or of their beginnings. What was read for an attempt is not read again for it; of
        what others had read it has nothing, so that what it costs does not depend on them."""

    def forget(self, problem: Problem, attempt: Hashable = None) -> None:
        """No more solutions of this problem will be asked about in this attempt."""
