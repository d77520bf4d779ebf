"""Selectors over a stored pool of candidates, as functions in a dict. All read the same pool.

A selector gives each candidate a share of the choice. Shares of a pool sum to 1, so ties are split evenly, and accuracy
is an expectation without sampling noise. An empty pool has no shares.

A candidate without an answer is *no result*: no selector, not even the random one, chooses it while another candidate
has an answer. If no candidate has one, all share the choice, and the problem counts as not solved.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vlprm.answers import choices_of, merged
from vlprm.errors import UserError
from vlprm.schema import Aggregation, Problem, StepScore
from vlprm.scoring.aggregate import AGGREGATIONS


@dataclass(frozen=True)
class Candidate:
    """The data on a candidate that selectors use: its answer (None: no result), the rewards of its steps (None: scoring
    gave no result), the reward of the whole solution read as one step, and the surprise (nats) of its least likely
    token."""

    answer: str | None
    rewards: tuple[float, ...] | None
    whole: float | None
    surprise: float | None = None


def rewards_of(scores: Sequence[StepScore | None]) -> tuple[float, ...] | None:
    """The rewards of a candidate's steps; None without steps, or if a step lacks a score."""
    rewards = tuple(score.correct for score in scores if score is not None)
    return rewards if rewards and len(rewards) == len(scores) else None


def surprise_of(scores: Sequence[StepScore | None]) -> float | None:
    """The surprise (nats) of a candidate's least likely token, if the model reads it."""
    return max((s.surprise for s in scores if s is not None and s.surprise is not None), default=None)


def voters(problem: Problem, pool: Sequence[Candidate]) -> list[Candidate]:
    """The candidates with equal answers written alike, so that a vote counts them together."""
    answers = merged([candidate.answer for candidate in pool], problem.answer_type, choices_of(problem))
    return [replace(candidate, answer=answer) for candidate, answer in zip(pool, answers, strict=True)]


Shares = list[float]
Selector = Callable[[Sequence[Candidate]], Shares]


def choosable(pool: Sequence[Candidate]) -> list[int]:
    """Indices of the candidates that may be chosen: those with an answer, or all if there is none."""
    return [i for i, c in enumerate(pool) if c.answer is not None] or list(range(len(pool)))


def sample(pool: Sequence[Candidate]) -> Shares:
    """A random candidate: the mean accuracy of the pool, which is also best of one."""
    return _evenly(pool, choosable(pool))


def majority(pool: Sequence[Candidate]) -> Shares:
    """Self-consistency (Wang et al., 2022): the most common answer."""
    return _vote(pool, [1.0] * len(pool))


def weighted_majority(pool: Sequence[Candidate], aggregation: Aggregation) -> Shares:
    """The answer with the largest sum of rewards (Li et al., 2022)."""
    return weighted_vote(pool, solution_rewards(pool, aggregation))


def best_of_n(pool: Sequence[Candidate], aggregation: Aggregation) -> Shares:
    """The candidate with the largest reward."""
    return best(pool, solution_rewards(pool, aggregation))


def weighted_vote(pool: Sequence[Candidate], rewards: Sequence[float | None]) -> Shares:
    """`weighted_majority` with one reward per candidate; None and negative ones have weight 0."""
    return _vote(pool, [max(reward or 0.0, 0.0) for reward in rewards])


def best(pool: Sequence[Candidate], rewards: Sequence[float | None]) -> Shares:
    """`best_of_n` with one reward per candidate; None ranks last."""
    values = ranking(pool, rewards)
    highest = max(values.values(), default=None)
    return _evenly(pool, [i for i, value in values.items() if value == highest])


def agreement(pool: Sequence[Candidate]) -> float:
    """The share of the most common answer among the candidates with an answer; 0 if there is none."""
    votes = Counter(candidate.answer for candidate in pool if candidate.answer is not None)
    return max(votes.values()) / votes.total() if votes else 0.0


def tie_broken(pool: Sequence[Candidate], aggregation: Aggregation) -> Shares:
    """The vote, in which the candidate with the largest reward decides between answers with equally many votes."""
    shares, rewards = majority(pool), solution_rewards(pool, aggregation)
    leading = [i for i, share in enumerate(shares) if share]
    kept = best([pool[i] for i in leading], [rewards[i] for i in leading])
    found = dict(zip(leading, kept, strict=True))
    return [found.get(i, 0.0) for i in range(len(pool))]


def vote_above(pool: Sequence[Candidate], aggregation: Aggregation, share: float) -> Shares:
    """The vote if more than this share of the candidates with an answer agree; else the largest reward."""
    return majority(pool) if agreement(pool) > share else best_of_n(pool, aggregation)


def whole_solution(pool: Sequence[Candidate]) -> Shares:
    """The candidate with the largest reward of the whole solution read as one step."""
    return best(pool, [c.whole for c in pool])


def likeliest(pool: Sequence[Candidate]) -> Shares:
    """The candidate that surprises the backbone least: a baseline without training."""
    return best(pool, [None if c.surprise is None else -c.surprise for c in pool])


def solution_rewards(pool: Sequence[Candidate], aggregation: Aggregation) -> list[float | None]:
    """One reward per candidate; None without step rewards. UserError for an unknown aggregation."""
    if aggregation not in AGGREGATIONS:
        raise UserError(f"unknown aggregation {aggregation!r}; known: {', '.join(AGGREGATIONS)}")
    return [AGGREGATIONS[aggregation](c.rewards) if c.rewards else None for c in pool]


def ranking(pool: Sequence[Candidate], rewards: Sequence[float | None]) -> dict[int, float]:
    """The reward of each choosable candidate by index; those without one rank last."""
    found = {i: rewards[i] for i in choosable(pool)}
    return {i: -math.inf if reward is None else reward for i, reward in found.items()}


def _evenly(pool: Sequence[Candidate], chosen: Sequence[int]) -> Shares:
    shares = [0.0] * len(pool)
    for i in chosen:
        shares[i] = 1.0 / len(chosen)
    return shares


def _vote(pool: Sequence[Candidate], weights: Sequence[float]) -> Shares:
    answers = [candidate.answer for candidate in pool]
    votes: dict[str, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            votes[answer] = votes.get(answer, 0.0) + weight
    if not votes:
        return sample(pool)
    most = max(votes.values())
    winners = [answer for answer, vote in votes.items() if vote == most]
    shares = {answer: 1 / len(winners) / answers.count(answer) for answer in winners}
    return [0.0 if answer is None else shares.get(answer, 0.0) for answer in answers]


def selectors(aggregation: Aggregation) -> dict[str, Selector]:
    """Every selector by its name in results; `aggregation` is the fixed one for weighted votes."""
    named: dict[str, Selector] = {
        "random": sample,
        "majority": majority,
        "weighted_majority": lambda pool: weighted_majority(pool, aggregation),
        "whole_solution": whole_solution,
    }
    for name in AGGREGATIONS:
        named[f"prm_{name}"] = lambda pool, name=name: best_of_n(pool, name)  # type: ignore[misc]
    return {**named, "likeliest": likeliest}
