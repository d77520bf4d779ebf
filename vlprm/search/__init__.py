"""Selectors over a stored pool of candidates, as functions in a dict. All read the same pool.

A selector gives each candidate a share of the choice (the shares of a pool add up to 1), so that ties are split
evenly, and an accuracy is an expectation with no chance in it. A candidate without an answer can be chosen only where
every candidate is without one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vlprm.scoring import AGGREGATIONS


@dataclass(frozen=True)
class Candidate:
    """What selectors know of a candidate: its answer (None: no result), the rewards of its steps, and the reward of
    the whole read as one step. `rewards` is None where scoring gave no result."""

    answer: str | None
    rewards: tuple[float, ...] | None
    whole: float | None


Shares = list[float]
Selector = Callable[[Sequence[Candidate]], Shares]


def sample(pool: Sequence[Candidate]) -> Shares:
    """A random candidate: what one sample of the policy does (pass@1)."""
    return [1 / len(pool)] * len(pool)


def majority(pool: Sequence[Candidate]) -> Shares:
    """Self-consistency (Wang et al., 2022): the commonest answer."""
    return _vote(pool, [1.0] * len(pool))


def weighted_majority(pool: Sequence[Candidate], aggregation: str) -> Shares:
    """The answer whose candidates' rewards add up to most (Li et al., 2022)."""
    return _vote(pool, [0.0 if r is None else r for r in solution_rewards(pool, aggregation)])


def best_of_n(pool: Sequence[Candidate], aggregation: str) -> Shares:
    """The candidate with the largest reward."""
    return _best(pool, solution_rewards(pool, aggregation))


def whole_solution(pool: Sequence[Candidate]) -> Shares:
    """The candidate with the largest reward of the whole read as one step."""
    return _best(pool, [c.whole for c in pool])


def solution_rewards(pool: Sequence[Candidate], aggregation: str) -> list[float | None]:
    """A reward a candidate; None where there are no step rewards."""
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"unknown aggregation {aggregation!r}; known: {', '.join(AGGREGATIONS)}")
    return [AGGREGATIONS[aggregation](c.rewards) if c.rewards else None for c in pool]


def ranking_values(pool: Sequence[Candidate], rewards: Sequence[float | None]) -> list[float]:
    """Rewards with candidates that cannot be chosen before the others put last."""
    low = float("-inf")
    return [low if reward is None or c.answer is None else reward for c, reward in zip(pool, rewards, strict=True)]


def _best(pool: Sequence[Candidate], rewards: Sequence[float | None]) -> Shares:
    values = ranking_values(pool, rewards)
    best = max(values)
    chosen = [value == best for value in values]
    return [c / sum(chosen) for c in chosen]


def _vote(pool: Sequence[Candidate], weights: Sequence[float]) -> Shares:
    votes: dict[str, float] = defaultdict(float)
    members: dict[str, list[int]] = defaultdict(list)
    for i, (candidate, weight) in enumerate(zip(pool, weights, strict=True)):
        if candidate.answer is not None:
            votes[candidate.answer] += weight
            members[candidate.answer].append(i)
    if not votes:
        return sample(pool)
    best = max(votes.values())
    winners = [answer for answer, vote in votes.items() if vote == best]
    shares = [0.0] * len(pool)
    for answer in winners:
        for i in members[answer]:
            shares[i] = 1 / len(winners) / len(members[answer])
    return shares


def selectors(aggregation: str) -> dict[str, Selector]:
    """Every selector by the name it has in results; `aggregation` is the one fixed for weighted votes."""
    named: dict[str, Selector] = {
        "random": sample,
        "majority": majority,
        "weighted_majority": lambda pool: weighted_majority(pool, aggregation),
        "whole_solution": whole_solution,
    }
    for name in AGGREGATIONS:
        named[f"prm_{name}"] = lambda pool, name=name: best_of_n(pool, name)  # type: ignore[misc]
    return named
