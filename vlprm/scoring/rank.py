"""Rank texts from any generator by any reward function.

rank(problem, ["[answer] 1", "[answer] 2"], lambda problem, text: 0.9 if "2" in text else 0.1)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vlprm.answers import choices_of, extract_answer
from vlprm.errors import UserError
from vlprm.schema import Problem
from vlprm.steps import split_steps

Reward = Callable[[Problem, str], float | None]


@dataclass(frozen=True)
class Ranked:
    """A text with its final answer in canonical form (None: it has none) and its reward (None: no result)."""

    text: str
    answer: str | None
    reward: float | None


def rank(problem: Problem, texts: Sequence[str], reward: Reward) -> list[Ranked]:
    """The texts from best to worst, as `best_of_n` chooses: those with an answer first, then by reward. None ranks
    last, and equal ones keep their order. UserError if a reward is not a finite number."""
    ranked = [
        Ranked(text, extract_answer(split_steps(text), problem.answer_type, choices_of(problem)), reward(problem, text))
        for text in texts
    ]
    for number, one in enumerate(ranked, 1):
        if one.reward is not None and not math.isfinite(one.reward):
            raise UserError(f"the reward of text {number} is {one.reward}; give a finite number, or None for no result")
    return sorted(ranked, key=_worse)


def _worse(one: Ranked) -> tuple[bool, float]:
    return one.answer is None, math.inf if one.reward is None else -one.reward
