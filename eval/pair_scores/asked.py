"""Ask for preferences: the rewards of both responses of a pair, or a judge's choice between them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from eval.pair_scores.config import PreferencesConfig
from vlprm.errors import ProblemError, RecordError
from vlprm.labels.judge import CONTROL_TOKEN, NoJudgement
from vlprm.labels.preference import PREFERENCE_SCHEMA, preference_problem, prefers_first
from vlprm.pair_benchmarks.pairs import Pair, PairBenchmark, PairSet, Preference, pictures, said
from vlprm.policy import Continuation, Policy, Request, all_answers
from vlprm.schema import Aggregation, Problem, Step
from vlprm.scoring import Scorer
from vlprm.scoring.aggregate import aggregated
from vlprm.scoring.judged import MAX_TOKENS, temperature_of
from vlprm.steps import split_steps

Record = dict[str, Any]


async def rewarded(scorer: Scorer, pair: Pair, found: PairSet) -> Record:
    """The step rewards of both responses, or why they are missing: a missing image, a prompt that the model cannot
    read, a response that is empty or has a step without a score."""
    try:
        problem = pair.problem(found.open_images(pair.images))
        shown = [found.open_images(pictures(parts)) for parts in pair.responses]
        steps = [split_steps(said(parts, len(problem.images))) for parts in pair.responses]
        if not all(any(step.text.strip() for step in of_one) for of_one in steps):
            return {"key": pair.key, "no_result": "empty_response"}
        if any(shown):
            of_each = await all_answers(
                _rewards(scorer, _seeing(problem, name, images), [of_one])
                for name, images, of_one in zip("ab", shown, steps, strict=True)
            )
            rewards = [of_one for (of_one,) in of_each]
        else:
            rewards = await _rewards(scorer, problem, steps)
    except (RecordError, ProblemError) as error:
        return {"key": pair.key, "no_result": error.cause}
    if any(reward is None for of_one in rewards for reward in of_one):
        return {"key": pair.key, "no_result": "unread_step"}
    return {"key": pair.key, "rewards": rewards}


def _seeing(problem: Problem, name: str, images: tuple[bytes, ...]) -> Problem:
    """The problem with the images of one response after its own."""
    return replace(problem, id=f"{problem.id}/{name}", images=(*problem.images, *images))


async def _rewards(scorer: Scorer, problem: Problem, solutions: Sequence[Sequence[Step]]) -> list[list[float | None]]:
    scored = await scorer.score(problem, solutions)
    return [[None if score is None else score.correct for score in of_one] for of_one in scored.steps]


async def judged(judge: Policy, benchmark: PairBenchmark, pair: Pair, found: PairSet, how: PreferencesConfig) -> Record:
    """The judge's answers in the orders of the benchmark's protocol: which response each prefers, or why it has no
    result."""
    orders = orders_of(benchmark, pair, how.samples, how.seed)
    texts = [part for parts in pair.responses for part in parts if isinstance(part, str)]
    if any(CONTROL_TOKEN.search(text) for text in [pair.question, *texts]):
        return {"key": pair.key, "no_result": "control_token"}
    try:
        asked = {first: _question(pair, found, first) for first in sorted(set(orders))}
        answers = await all_answers(
            judge.sample(
                Request(
                    asked[first], (), orders.count(first), f"{pair.key}/preference/{first}", how.seed,
                    temperature_of(how.samples), MAX_TOKENS, PREFERENCE_SCHEMA,
                )
            )
            for first in asked
        )  # fmt: skip
    except (RecordError, ProblemError) as error:
        return {"key": pair.key, "no_result": error.cause}
    listed = [_answer(answer, first) for first, of_one in zip(asked, answers, strict=True) for answer in of_one]
    return {"key": pair.key, "answers": listed}


def _question(pair: Pair, found: PairSet, first: int) -> Problem:
    """The question to the judge, which shows the response at the index `first` first. Its images follow those of the
    prompt, then those of the other response."""
    own, second = found.open_images(pair.images), 1 - first
    shown = [found.open_images(pictures(parts)) for parts in pair.responses]
    problem = pair.problem((*own, *shown[first], *shown[second]))
    texts = said(pair.responses[first], len(own)), said(pair.responses[second], len(own) + len(shown[first]))
    return preference_problem(problem, *texts)


def _answer(answer: Continuation, first: int) -> Record:
    """What one answer says: the index of the response that it prefers."""
    try:
        if answer.incomplete:
            raise NoJudgement(answer.incomplete)
        return {"first": first, "prefers": first if prefers_first(answer.text) else 1 - first}
    except NoJudgement as failure:
        return {"first": first, "no_result": failure.cause}


def orders_of(benchmark: PairBenchmark, pair: Pair, samples: int, seed: int) -> list[int]:
    """The index of the response that is shown first, for each answer of a judge, as the benchmark's protocol asks."""
    if benchmark.orders == "both":
        return [0] * samples + [1] * samples
    if benchmark.orders == "given":
        return [0] * samples
    drawn = random.Random(f"{seed}/{pair.key}")
    return [drawn.randrange(2) for _ in range(samples)]


def preferences_of(
    record: Mapping[str, Any], pair: Pair, aggregation: Aggregation, answers: int = 1
) -> list[Preference]:
    """What a record says of its pair: one preference of the rewards, or one per answer of the judge. A pair without a
    record of them has `answers` without a result."""
    if "rewards" in record:
        right, wrong = (aggregated(record["rewards"][k], aggregation) for k in (pair.better, 1 - pair.better))
        if right is None or wrong is None:
            return [None]
        return [0.5 if right == wrong else float(right > wrong)]
    if "answers" in record:
        return [
            float(answer["prefers"] == pair.better) if "prefers" in answer else None for answer in record["answers"]
        ]
    return [None] * answers
