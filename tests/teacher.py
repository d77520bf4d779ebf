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
    """Continues a prefix by drawing whole solutions until one opens with it; a zoom ends the turn."""

    dialect = "relative_1000"
    zoom = ZoomPolicy()

    def __init__(self, slip_rate: float = 0.15, tasks: Tasks = TASKS) -> None:
        self.slip_rate, self.tasks = slip_rate, tasks
        self.requests = 0

    def seen_size(self, problem: Problem, shown: int | Region = 0) -> Size:
        return open_image(problem.images[0]).size

    async def sample(self, request: Request) -> list[Continuation]:
        self.requests += 1
        return [self._one(request, rng_for(request.seed, request.key, i)) for i in range(request.n)]

    def _one(self, request: Request, rng: random.Random) -> Continuation:
        prefix = [step.text for step in request.steps]
        for _ in range(20_000):
            texts = self.solution(request.problem, rng)
            if texts[: len(prefix)] == prefix:
                return _turn(texts[len(prefix) :])
        return Continuation("no such solution", 3, False)

    def solution(self, problem: Problem, rng: random.Random) -> list[str]:
        def write(kind: ErrorKind, concept: str, truth: V, near: Sequence[V]) -> V:
            return rng.choice(near) if near and rng.random() < self.slip_rate else truth

        return task_of(problem.task, self.tasks).solve(problem.meta["scene"], write)


def _turn(texts: list[str]) -> Continuation:
    zoom = next((i for i, text in enumerate(texts) if text.startswith("[zoom]")), len(texts) - 1)
    text = SEPARATOR.join(texts[: zoom + 1])
    return Continuation(text, len(text.split()), True)
