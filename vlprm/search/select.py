"""Selectors over a stored pool of candidates, as functions in a dict. All read the same pool.

A selector gives each candidate a share of the choice (the shares of a pool add up to 1), so that ties are split
evenly, and an accuracy is an expectation with no chance in it. An empty pool has no shares.

A candidate without an answer is a *no result*: no selector, the random one included, chooses it while another candidate
has an answer (one sees that it has none without any reward). Where no candidate has one, all share the choice, and the
problem is not solved, whoever chooses.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vlprm.reward_model import StepScore
from vlprm.schema import Aggregation
from vlprm.scoring import AGGREGATIONS


@dataclass(frozen=True)
class Candidate:
    """What selectors know of a candidate: its answer (None: no result), the rewards of its steps, the reward of the
    whole read as one step, and the nats of its least likely token. `rewards` is None where scoring gave no result."""

    answer: str | None
    rewards: tuple[float, ...] | None
    whole: float | None
    surprise: float | None = None


def rewards_of(scores: Sequence[StepScore | None]) -> tuple[float, ...] | None:
    """The rewards of a candidate's steps; None where one has no score, and where there are no steps."""
    rewards = tuple(score.correct for score in scores if score is not None)
    return rewards if rewards and len(rewards) == len(scores) else None


def surprise_of(scores: Sequence[StepScore | None]) -> float | None:
    """The nats of a candidate's least likely token, where the model reads them."""
    return max((s.surprise for s in scores if s is not None and s.surprise is not None), default=None)


Shares = list[float]
Selector = Callable[[Sequence[Candidate]], Shares]


def choosable(pool: Sequence[Candidate]) -> list[int]:
    """Indices of the candidates that may be chosen: those with an answer, or all where there is no answer."""
    return [i for i, c in enumerate(pool) if c.answer is not None] or list(range(len(pool)))


def sample(pool: Sequence[Candidate]) -> Shares:
    """A random candidate: the mean of the pool, and what the best of one is."""
    return _evenly(pool, choosable(pool))


def majority(pool: Sequence[Candidate]) -> Shares:
    """Self-consistency (Wang et al., 2022): the commonest answer."""
    return _vote(pool, [1.0] * len(pool))


def weighted_majority(pool: Sequence[Candidate], aggregation: Aggregation) -> Shares:
    """The answer whose candidates' rewards add up to most (Li et al., 2022)."""
    return _vote(pool, [0.0 if r is None else r for r in solution_rewards(pool, aggregation)])


def best_of_n(pool: Sequence[Candidate], aggregation: Aggregation) -> Shares:
    """The candidate with the largest reward."""
    return _best(pool, solution_rewards(pool, aggregation))


def whole_solution(pool: Sequence[Candidate]) -> Shares:
    """The candidate with the largest reward of the whole read as one step."""
    return _best(pool, [c.whole for c in pool])


def likeliest(pool: Sequence[Candidate]) -> Shares:
    """The candidate that surprises the backbone least: what a selector has that was trained on nothing."""
    return _best(pool, [None if c.surprise is None else -c.surprise for c in pool])


def solution_rewards(pool: Sequence[Candidate], aggregation: Aggregation) -> list[float | None]:
    """A reward a candidate; None where there are no step rewards."""
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"unknown aggregation {aggregation!r}; known: {', '.join(AGGREGATIONS)}")
    return [AGGREGATIONS[aggregation](c.rewards) if c.rewards else None for c in pool]


def ranking(pool: Sequence[Candidate], rewards: Sequence[float | None]) -> dict[int, float]:
    """The reward of each candidate that may be chosen, by its index; those without one stand behind all others."""
    found = {i: rewards[i] for i in choosable(pool)}
    return {i: -math.inf if reward is None else reward for i, reward in found.items()}


def _best(pool: Sequence[Candidate], rewards: Sequence[float | None]) -> Shares:
    values = ranking(pool, rewards)
    best = max(values.values(), default=None)
    return _evenly(pool, [i for i, value in values.items() if value == best])


def _evenly(pool: Sequence[Candidate], chosen: Sequence[int]) -> Shares:
    return [float(i in chosen) / len(chosen) for i in range(len(pool))]


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


def selectors(aggregation: Aggregation) -> dict[str, Selector]:
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
