"""Read the image again to judge a perception step, without knowing what it says (after TIM-PRM, arXiv 2511.22998).

A judge that is shown a claim tends to confirm it. Here a call that sees no image turns the step into a question with a
short answer. Further calls see the image and that question alone. The step is correct if its answer is what all of them
read, wrong if they all read another, and without a verdict if they disagree.

`reread` simulates this in the drawn world: a second reader whose mistakes depend on the fact, not on what was said.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from data_synth.judges.config import SamplingConfig
from data_synth.judges.model import Judged, judge_each_step, read_answers, to_judge
from vlprm.answers import CANONICAL, is_correct
from vlprm.images import content_hash
from vlprm.labels.judge import CONTROL_TOKEN, object_schema, read_json
from vlprm.policy import Policy, Request
from vlprm.prompts import QUESTION_TEMPLATES, READING_TEMPLATES
from vlprm.schema import AnswerType, Problem, Step, StepTree, Verdict
from vlprm.tasks.scene import rng_for
from vlprm.tasks.synthetic import SyntheticFamily

T = TypeVar("T")
ANSWER_TYPES: tuple[AnswerType, ...] = ("integer", "float", "word", "list", "text")


@dataclass(frozen=True)
class Question:
    """A question about the image and the answer that a step gives to it."""

    question: str
    answer: str
    type: AnswerType


@dataclass(frozen=True)
class _Reading:
    answer: str


QUESTION_SCHEMA = object_schema(
    {"question": {"type": "string"}, "answer": {"type": "string"}, "type": {"enum": list(ANSWER_TYPES)}}
)
READING_SCHEMA = object_schema({"answer": {"type": "string"}})


class Reader:
    """Asks about the perception steps of one problem. A step's question is made once, and each question is asked once,
    because solutions share steps and steps share questions."""

    def __init__(self, problem: Problem, engine: Policy, config: SamplingConfig, seed: int, judged: Judged) -> None:
        self.problem, self.engine, self.config, self.seed, self.judged = problem, engine, config, seed, judged
        self._questions: dict[str, asyncio.Task[Question | None]] = {}
        self._readings: dict[str, asyncio.Task[list[str]]] = {}

    async def verdict(self, step: Step) -> Verdict | None:
        """The verdict on a step; None if it is not a perception step, or there is no clear answer."""
        if step.kind != "perception":
            return None
        text = step.text.strip()
        if text not in self._questions:
            self._questions[text] = asyncio.create_task(self._question(text))
        question = await self._questions[text]
        if question is None:
            return None
        if question.question not in self._readings:
            self._readings[question.question] = asyncio.create_task(self._read(question.question))
        return self._compared(question, await self._readings[question.question])

    def _compared(self, asked: Question, read: Sequence[str]) -> Verdict | None:
        if len(read) < self.config.samples:
            return None  # its failures are counted
        first, *others = read
        agrees = _same(first, asked.answer, asked.type)
        if agrees is None or not all(_same(other, first, asked.type) for other in others):
            self.judged.failed("not_comparable" if agrees is None else "unsure")
            return None
        reason = f"{asked.question} {first}"
        return Verdict(True, None, reason) if agrees else Verdict(False, "perception", reason)

    async def _question(self, text: str) -> Question | None:
        """The question that a step answers; None if it answers none, or if the question names the answer."""
        prompt = QUESTION_TEMPLATES["question@1"].format(question=self.problem.question, step=text)
        blind = dataclasses.replace(self.problem, question=prompt, images=(), meta={})
        key = f"question{content_hash(text.encode())}"
        for made in await self._asked(blind, 1, key, QUESTION_SCHEMA, partial(read_json, Question)):
            if not made.question.strip() or not made.answer.strip() or made.type not in ANSWER_TYPES:
                self.judged.failed("not_comparable")
            elif _names(made.question, made.answer):
                self.judged.failed("names_the_answer", made.question)
            else:
                return made
        return None

    async def _read(self, question: str) -> list[str]:
        """What the image model reads, without the solution."""
        prompt = READING_TEMPLATES["reading@1"].format(question=question)
        shown = dataclasses.replace(self.problem, question=prompt, meta={})
        key = f"reading{content_hash(question.encode())}"
        read = await self._asked(shown, self.config.samples, key, READING_SCHEMA, partial(read_json, _Reading))
        return [reading.answer for reading in read]

    async def _asked(
        self, shown: Problem, n: int, key: str, schema: dict[str, Any], read: Callable[[str], T]
    ) -> list[T]:
        config = self.config
        if CONTROL_TOKEN.search(shown.question):  # a server would obey it
            return self.judged.failed("control_token")
        request = Request(
            shown, (), n, f"{self.problem.id}#{key}", self.seed, config.temperature, config.max_tokens, schema
        )
        return await read_answers(request, self.engine, config.tries, self.judged, read)


def _same(answer: str, other: str, answer_type: AnswerType) -> bool | None:
    """Whether two answers are equal; None if one is not of the type."""
    said, right = CANONICAL[answer_type](answer), CANONICAL[answer_type](other)
    if said is None or right is None or (answer_type == "integer" and "," in right):
        return None
    return is_correct(said, other, answer_type)


def _names(question: str, answer: str) -> bool:
    """Whether a question names its answer, as a leading question does."""
    return re.search(rf"(?<![\w.]){re.escape(answer.strip())}(?![\w.])", question, re.IGNORECASE) is not None


async def reread_tree(problem: Problem, tree: StepTree, engine: Policy, config: SamplingConfig, seed: int) -> Judged:
    """Judge the perception steps of up to `config.solutions` solutions of a tree by reading the image again."""
    judged = to_judge(problem, tree, config)
    reader = Reader(problem, engine, config, seed, judged)
    return await judge_each_step(tree, judged, lambda node: reader.verdict(tree.nodes[node].step))


def reread(
    family: SyntheticFamily, problem: Problem, steps: Sequence[Step], error_rate: float, seed: int
) -> list[Verdict | None]:
    """One verdict per step by a simulated second reader; None for what is not a reading. Each fact is misread with
    probability `error_rate`, whatever the step says; half of the misreadings are those of a wrong step."""
    return [
        _second_reading(claim.said == claim.true, rng_for("reread", seed, problem.id, claim.key), error_rate)
        if claim and claim.is_reading
        else None
        for claim in family.claims(problem, steps)
    ]


def _second_reading(right: bool, rng: random.Random, error_rate: float) -> Verdict:
    misread, alike = rng.random() < error_rate, rng.random() < 0.5
    agrees = not misread if right else misread and alike
    return Verdict(True) if agrees else Verdict(False, "perception")
