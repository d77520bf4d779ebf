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
    """The mean of `samples` sampled critiques by a model that writes them (ThinkPRM's parallel scaling, arXiv
    2504.16828): the share that calls a step right. A critique ends at the first step that it calls wrong; those after
    it follow from an error, and count as wrong. Critiques that cannot be read count for nothing."""

    def __init__(self, engine: Policy, prompt_template: str, samples: int, temperature: float = 0.7, seed: int = 0):
        self.engine, self.samples, self.temperature, self.seed = engine, samples, temperature, seed
        self.question = critique_question(prompt_template)

    async def score(self, problem: Problem, solutions: Solutions, attempt: Hashable = None) -> Scored:
        found = await all_answers(self._shares(problem, steps) for steps in solutions)
        return Scored([shares for shares, _ in found], [tokens for _, tokens in found])

    def forget(self, problem: Problem, attempt: Hashable = None) -> None:
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
