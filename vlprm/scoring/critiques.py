"""Rewards from sampled critiques."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from vlprm.images import content_hash
from vlprm.policy import Policy, all_answers
from vlprm.policy.critique import sample_critiques
from vlprm.policy.usage import CountedPolicy
from vlprm.prompts import critique_question
from vlprm.schema import Problem, Step, StepScore
from vlprm.scoring import Scored, Solutions
from vlprm.steps import join_steps


class CritiqueScorer:
    """The reward of a step is the share of `samples` sampled critiques that call it right (ThinkPRM's parallel scaling,
    arXiv 2504.16828). A critique ends at the first step that it calls wrong; the steps after it count as wrong too.
    Critiques that cannot be parsed are ignored."""

    def __init__(self, engine: Policy, prompt_template: str, samples: int, temperature: float = 0.7, seed: int = 0):
        self.engine, self.samples, self.temperature, self.seed = engine, samples, temperature, seed
        self.question = critique_question(prompt_template)

    async def score(self, problem: Problem, solutions: Solutions, attempt: Hashable = None) -> Scored:
        """Score solutions by sampled critiques; see `Scorer.score`. Tokens are those that the critic reads and
        samples."""
        found = await all_answers(self._shares(problem, steps) for steps in solutions)
        return Scored([shares for shares, _ in found], [tokens for _, tokens in found])

    def forget(self, problem: Problem, attempt: Hashable = None) -> None:
        """Nothing to do: no cache is kept."""
        pass

    async def _shares(self, problem: Problem, steps: Sequence[Step]) -> tuple[list[StepScore | None], int]:
        if not steps:
            return [], 0
        engine = CountedPolicy(self.engine)
        key = f"{problem.id}/critique/{content_hash(join_steps(steps).encode())}"
        asked = engine, problem, steps, self.question, key, self.seed, self.samples, self.temperature
        read = [critique for critique in await sample_critiques(*asked) if critique is not None]
        if not read:
            return [None] * len(steps), engine.tokens
        right = [[c.first_wrong is None or k < c.first_wrong for c in read] for k in range(len(steps))]
        return [StepScore(sum(of_step) / len(read), None, None) for of_step in right], engine.tokens
