"""A policy without a model: a family's own solver with a careless writer. It gives tests real solutions at no cost."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from vlprm.images import open_image
from vlprm.policy import Continuation, Request
from vlprm.schema import ErrorKind, Problem, Region
from vlprm.steps import SEPARATOR
from vlprm.tasks import TASKS, Tasks, task_of
from vlprm.tasks.scene import rng_for
from vlprm.zoom.boxes import Size
from vlprm.zoom.policy import ZoomPolicy

V = TypeVar("V")


class TeacherEngine:
    """Continues a prefix by the solver; a zoom ends the turn.

    Whole solutions are drawn until one opens with the prefix. The writer's choices that lead to a prefix are found
    first, because few solutions would open with one that has slips."""

    dialect = "relative_1000"
    zoom = ZoomPolicy()

    def __init__(self, slip_rate: float = 0.15, tasks: Tasks = TASKS) -> None:
        self.slip_rate, self.tasks = slip_rate, tasks
        self.requests = 0
        self.choices: dict[tuple[str, ...], list[int]] = {}  # by problem and steps

    def seen_size(self, problem: Problem, shown: int | Region = 0) -> Size:
        return open_image(problem.images[0]).size

    async def sample(self, request: Request) -> list[Continuation]:
        self.requests += 1
        return [self._one(request, rng_for(request.seed, request.key, i)) for i in range(request.n)]

    def _one(self, request: Request, rng: random.Random) -> Continuation:
        problem, prefix = request.problem, [step.text for step in request.steps]
        key = (problem.id, *prefix)
        if key not in self.choices:
            self.choices[key] = self._leading_to(problem, prefix)
        for _ in range(20_000):
            texts, _ = self._solved(problem, self.choices[key], rng)
            if texts[: len(prefix)] == prefix:
                return _turn(texts[len(prefix) :])
        return Continuation("no such solution", 3, False)

    def solution(self, problem: Problem, rng: random.Random) -> list[str]:
        return self._solved(problem, [], rng)[0]

    def written(self, concept: str, truth: V, near: Sequence[V], rng: random.Random) -> V:
        """What the writer claims in place of a fact, or the fact."""
        return rng.choice(near) if near and rng.random() < self.slip_rate else truth

    def _solved(
        self, problem: Problem, choices: Sequence[int], rng: random.Random | None
    ) -> tuple[list[str], list[int]]:
        """A solution that begins with these choices and goes on with those of `rng`, or with the truth; and how many
        values there were for each choice."""
        values: list[int] = []

        def write(kind: ErrorKind, concept: str, truth: V, near: Sequence[V]) -> V:
            values.append(1 + len(near))
            if len(values) <= len(choices):
                return [truth, *near][choices[len(values) - 1]]
            return self.written(concept, truth, near, rng) if rng else truth

        return task_of(problem.task, self.tasks).solve(problem.meta["scene"], write), values

    def _leading_to(self, problem: Problem, prefix: list[str]) -> list[int]:
        """The choices that the prefix depends on, each the one whose text agrees longest with it."""
        choices: list[int] = []
        while len(values := self._solved(problem, choices, None)[1]) > len(choices):
            options = range(values[len(choices)])
            openings = [self._solved(problem, [*choices, i], None)[0][: len(prefix)] for i in options]
            if len(options) > 1 and all(opening == openings[0] for opening in openings):
                break
            choices.append(max(options, key=lambda i: _agreement("\n".join(openings[i]), "\n".join(prefix))))
        return choices


def _agreement(one: str, other: str) -> int:
    """The number of characters with which both begin."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _turn(texts: list[str]) -> Continuation:
    zoom = next((i for i, text in enumerate(texts) if text.startswith("[zoom]")), len(texts) - 1)
    text = SEPARATOR.join(texts[: zoom + 1])
    return Continuation(text, len(text.split()), True)
