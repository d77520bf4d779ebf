"""Scorers give rewards to the steps of solutions: in this process, from a server, from several models, or from
critiques.

    scorer = LocalScorer(load_reward_model("runs/demo/prm"))
    found = await scorer.score(problem, [solution.steps for solution in candidates])

A scorer never raises for what a policy wrote. A failure to score is None (no result), never 0.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from vlprm.schema import Problem, Step, StepScore

Solutions = Sequence[Sequence[Step]]


@dataclass(frozen=True)
class Scored:
    """One list of scores per solution, one score per step (None: no result), and the tokens read (and written) for each
    solution that earlier solutions had not already paid for."""

    steps: list[list[StepScore | None]]
    read: list[int]

    @property
    def tokens(self) -> int:
        """Total number of tokens."""
        return sum(self.read)


class Scorer(Protocol):
    """A model or several that score steps."""

    async def score(self, problem: Problem, solutions: Solutions, attempt: Hashable = None) -> Scored:
        """Score solutions or prefixes of solutions. The cache is kept within an attempt and never shared across
        attempts, so an attempt's cost does not depend on what else runs. Without an attempt (None), nothing is kept."""

    def forget(self, problem: Problem, attempt: Hashable = None) -> None:
        """Drop the attempt's cache: it asks about no more solutions of this problem."""
