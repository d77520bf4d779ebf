"""Texts of any generator are ranked by any reward, as best of N ranks its pool."""

from __future__ import annotations

import math

import pytest

import vlprm
from vlprm.schema import Problem
from vlprm.scoring.rank import Ranked
from vlprm.search.select import Candidate, best_of_n

PROBLEM = Problem("mine", "mine", "How many?", (), "3", "integer")


def test_own_texts_are_ranked_by_an_own_reward() -> None:
    rewards = {
        "[answer] 1": 0.2, "[answer] 3": 0.9, "The answer is 4.": 0.5, "I cannot tell.": 1.0, "[answer] 7": None
    }  # fmt: skip
    found = vlprm.rank(PROBLEM, list(rewards), lambda problem, text: rewards[text])
    assert [one.answer for one in found] == ["3", "4", "1", "7", None]
    assert found[0] == Ranked("[answer] 3", "3", 0.9)
    pool = [Candidate(one.answer, None if one.reward is None else (one.reward,), None) for one in found]
    assert best_of_n(pool, "last") == [1, 0, 0, 0, 0]


def test_equal_rewards_keep_their_order_and_a_reward_is_a_number() -> None:
    assert [one.text for one in vlprm.rank(PROBLEM, ["2", "1", "3"], lambda problem, text: 0.5)] == ["2", "1", "3"]
    assert vlprm.rank(PROBLEM, [], lambda problem, text: 0.5) == []
    with pytest.raises(ValueError, match="the reward of text 2 is nan; give a finite number, or None"):
        vlprm.rank(PROBLEM, ["1", "2"], lambda problem, text: math.nan if text == "2" else 0.0)
