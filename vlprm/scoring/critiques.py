"""Rewards from critiques: the share of sampled critiques that call a step right, or the probability of that verdict."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

from vlprm.images import content_hash
from vlprm.policy import Policy, all_answers
from vlprm.policy.critique import right_probability, sample_critiques
from vlprm.policy.usage import CountedPolicy
from vlprm.prompts import CritiqueTemplate
from vlprm.schema import Problem, Step, StepScore
from vlprm.scoring import Scored, Solutions
from vlprm.scoring.derived import joint
from vlprm.steps import join_steps


class CritiqueScorer:
    """The reward of a step is how surely critiques find no wrong step up to it.

    `decision`: the share of `samples` sampled critiques that do (a critique ends at the first step that it calls
    wrong), or the product, over the steps, of the mean probability of the verdict `right` after `samples` sampled
    reasons (ThinkPRM's score and parallel scaling, arXiv 2504.16828). The share estimates the same product, if the
    temperature is 1 and no correction repeats its step, which takes the verdict back. A template with the verdict first
    needs one pass per step for the probability, whatever `samples`. Critiques that cannot be parsed are ignored."""

    def __init__(
        self,
        engine: Policy,
        template: CritiqueTemplate,
        samples: int,
        decision: Literal["share", "probability"] = "share",
        temperature: float = 0.7,
        seed: int = 0,
    ) -> None:
        self.engine, self.template, self.samples, self.decision = engine, template, samples, decision
        self.temperature, self.seed = temperature, seed

    async def score(self, problem: Problem, solutions: Solutions, attempt: Hashable = None) -> Scored:
        """Score solutions by critiques; see `Scorer.score`. Tokens are those that the critic reads and samples."""
        found = await all_answers(self._scores(problem, steps) for steps in solutions)
        return Scored([scores for scores, _ in found], [tokens for _, tokens in found])

    def forget(self, problem: Problem, attempt: Hashable = None) -> None:
        """Nothing to do: no cache is kept."""
        pass

    async def _scores(self, problem: Problem, steps: Sequence[Step]) -> tuple[list[StepScore | None], int]:
        if not steps:
            return [], 0
        engine = CountedPolicy(self.engine)
        key = f"{problem.id}/critique/{content_hash(join_steps(steps).encode())}"
        scored = self._probabilities if self.decision == "probability" else self._shares
        return await scored(engine, problem, steps, key), engine.tokens

    async def _shares(
        self, engine: Policy, problem: Problem, steps: Sequence[Step], key: str
    ) -> list[StepScore | None]:
        asked = engine, problem, steps, self.template, key, self.seed, self.samples, self.temperature
        read = [critique for critique in await sample_critiques(*asked) if critique is not None]
        if not read:
            return [None] * len(steps)
        right = [[c.first_wrong is None or k < c.first_wrong for c in read] for k in range(len(steps))]
        return [StepScore(sum(of_step) / len(read), None, None) for of_step in right]

    async def _probabilities(
        self, engine: Policy, problem: Problem, steps: Sequence[Step], key: str
    ) -> list[StepScore | None]:
        how = self.seed, self.samples, self.temperature
        found = await all_answers(
            right_probability(engine, problem, steps[:end], self.template, f"{key}/{end}", *how)
            for end in range(1, len(steps) + 1)
        )
        return joint([None if p is None else StepScore(p, None, None) for p in found])
