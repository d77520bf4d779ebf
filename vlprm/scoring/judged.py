"""Rewards from a prompted vision-language model that was not trained to give any: it judges all steps, or looks for the
first wrong one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from vlprm.images import content_hash
from vlprm.labels.first_error import first_error_problem, first_error_schema, parse_first_error
from vlprm.labels.judge import CONTROL_TOKEN, NoJudgement, judge_problem, judge_schema, parse_judgement
from vlprm.policy import Continuation, Policy, Request, all_answers
from vlprm.schema import Problem, Step, StepScore
from vlprm.scoring import Scored, Solutions
from vlprm.steps import join_steps

log = logging.getLogger(__name__)

MAX_TOKENS = 4096


def temperature_of(samples: int) -> float:
    """The temperature of a judge's answers: one is greedy."""
    return 0.7 if samples > 1 else 0.0


@dataclass(frozen=True)
class Form:
    """How the model is asked about a solution, and how its answer says which steps are right."""

    asked: Callable[[Problem, Sequence[Step]], Problem]
    schema: Callable[[int], dict[str, Any]]
    parse: Callable[[str, int], list[bool]]


FORMS = {
    "judge": Form(
        lambda problem, steps: judge_problem(problem, steps, "judge@1"),
        judge_schema,
        lambda text, steps: [verdict.correct for verdict in parse_judgement(text, steps)],
    ),
    "first_error": Form(first_error_problem, first_error_schema, parse_first_error),
}


class JudgeScorer:
    """The reward of a step is the share of `samples` answers that call it right. Answers that cannot be read are left
    out; without any, the result is missing. One sample is greedy."""

    def __init__(self, engine: Policy, form: str, samples: int, seed: int = 0) -> None:
        self.engine, self.form, self.samples, self.seed = engine, FORMS[form], samples, seed
        self._told = False

    async def score(self, problem: Problem, solutions: Solutions, attempt: Hashable = None) -> Scored:
        """Score solutions; see `Scorer.score`. Tokens are those that the model reads and samples."""
        found = await all_answers(self._shares(problem, steps) for steps in solutions)
        return Scored([shares for shares, _ in found], [tokens for _, tokens in found])

    def forget(self, problem: Problem, attempt: Hashable = None) -> None:
        """Nothing to do: no cache is kept."""

    async def _shares(self, problem: Problem, steps: Sequence[Step]) -> tuple[list[StepScore | None], int]:
        none: list[StepScore | None] = [None] * len(steps)
        if not steps or any(CONTROL_TOKEN.search(step.text) for step in steps):
            return none, 0
        key = f"{problem.id}/judge/{content_hash(join_steps(steps).encode())}"
        about, schema = self.form.asked(problem, steps), self.form.schema(len(steps))
        asked = Request(about, (), self.samples, key, self.seed, temperature_of(self.samples), MAX_TOKENS, schema)
        answers = await self.engine.sample(asked)
        tokens = sum(answer.read + answer.tokens for answer in answers)
        read = [right for right in (self._read(answer, len(steps)) for answer in answers) if right is not None]
        if not read:
            return none, tokens
        return [StepScore(sum(of_step) / len(read), None, None) for of_step in zip(*read, strict=True)], tokens

    def _read(self, answer: Continuation, steps: int) -> list[bool] | None:
        try:
            if answer.incomplete:
                raise NoJudgement(answer.incomplete)
            return self.form.parse(answer.text, steps)
        except NoJudgement as failure:
            if not self._told:
                log.warning(
                    "an answer of the judge has no result (%s): %s", failure, " ".join(answer.text.split())[:200]
                )
                self._told = True
            return None
