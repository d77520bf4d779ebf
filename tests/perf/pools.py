"""Pools of candidates without a model: solutions with one wrong reading in ten, and random rewards."""

from __future__ import annotations

import random
from typing import Any

from vlprm.schema import Problem, Solution
from vlprm.scoring.tree import StepScore
from vlprm.steps import parse_step
from vlprm.tasks import TASKS


def solutions_of(problem: Problem, count: int, rng: random.Random) -> list[Solution]:
    def careless(kind: str, concept: str, truth: Any, near: Any) -> Any:
        return near[0] if near and rng.random() < 0.1 else truth

    def solution() -> Solution:
        texts = TASKS[problem.task].solve(problem.meta["scene"], careless)
        steps = tuple(map(parse_step, texts))
        return Solution(problem.id, steps, texts[-1].removeprefix("[answer] "), "answer", 40)

    return [solution() for _ in range(count)]


def scores_of(steps: int, rng: random.Random) -> list[StepScore]:
    rewards = [rng.random() for _ in range(steps)]
    return [StepScore(r, 1 - r, 0.0, 1.0) for r in rewards]
