"""The pool of candidates of one problem, read from a record of eval.run, for tables, reports and pages: choices of
selectors, and the best-of-n curve."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Any

from vlprm.errors import UserError
from vlprm.metrics import expected_best_of
from vlprm.schema import Aggregation, StepScore, Verdict
from vlprm.search.select import Candidate, Selector, ranking, rewards_of, selectors, solution_rewards, surprise_of

Record = dict[str, Any]
# Methods that choose among `n` whole samples: they share one pool and one record.
POOLED = ("pass_at_1", "self_consistency", "best_of_n", "weighted_majority")
# What a selector reads in addition to the answer of a candidate; all others read step rewards.
READS = {"random": "", "majority": "", "whole_solution": "whole", "likeliest": "surprise"}


@dataclass(frozen=True)
class Pool:
    """The candidates of one problem, in the order of sampling.

    `right` is None for no result. `spent`: tokens of each candidate, see `spend_of_first`. `prompt`: tokens that the
    policy read for all of them together. `scores` and `truth` hold a list of steps per candidate, with None for a step
    that could not be scored or does not parse; both are empty unless steps were asked for. `truth` itself is None if
    the task has no ground truth.
    """

    benchmark: str
    problem: str
    question_type: str
    candidates: tuple[Candidate, ...]
    right: tuple[bool | None, ...]
    spent: tuple[tuple[int, int, int], ...] = ()
    prompt: int = 0
    scores: tuple[tuple[StepScore | None, ...], ...] = ()
    truth: tuple[tuple[Verdict | None, ...], ...] | None = None

    @property
    def values(self) -> list[float]:
        """1 for each right candidate, 0 for wrong ones and no result."""
        return [float(right is True) for right in self.right]

    @property
    def every_step(self) -> list[float]:
        """1 for each candidate with a right answer and only right steps. Needs a ground truth."""
        assert self.truth is not None
        known = zip(self.right, self.truth, strict=True)
        return [float(right is True and all(v is not None and v.correct for v in steps)) for right, steps in known]

    @property
    def is_mixed(self) -> bool:
        """Whether some answers are right and some are wrong."""
        return {True, False} <= set(self.right)


def pool_of(record: Record, steps: bool = False) -> Pool:
    """The pool of a record; `steps` adds scores and ground truth per step, which take memory. UserError if a score is
    missing or not finite."""
    refuse_uncounted(record)
    stored = record["candidates"]
    of_candidates = [step_scores(c) for c in stored]
    spent = tuple((c["solution"]["tokens"], c["solution"]["read"], c["read"]) for c in stored)
    scores: tuple[tuple[StepScore | None, ...], ...] = ()
    truth: tuple[tuple[Verdict | None, ...], ...] | None = ()
    if steps:
        _refuse_bad_scores(record)
        scores = tuple(of_candidates)
        truth = None if any(c["truth"] is None for c in stored) else tuple(_verdicts(c["truth"]) for c in stored)
    return Pool(
        record["benchmark"],
        record["problem"],
        "/".join(filter(None, (record["benchmark"], record["question_type"]))),
        tuple(
            Candidate(c["vote"], rewards_of(read), c["whole"], surprise_of(read))
            for c, read in zip(stored, of_candidates, strict=True)
        ),
        tuple(c["right"] for c in stored),
        spent,
        record["cost"]["policy_read"] - sum(read for _, read, _ in spent),
        scores,
        truth,
    )


def step_scores(stored: Record) -> tuple[StepScore | None, ...]:
    """The scores of a stored candidate's steps."""
    return tuple(score and StepScore(**score) for score in stored["scores"])


def known_selectors(pools: Iterable[Pool], aggregation: Aggregation) -> dict[str, Selector]:
    """The selectors whose input some candidate of these pools has."""
    candidates = [candidate for pool in pools for candidate in pool.candidates]
    known = {name for name in ("rewards", "whole", "surprise") if any(getattr(c, name) is not None for c in candidates)}
    return {
        name: selector
        for name, selector in selectors(aggregation).items()
        if (reads := READS.get(name, "rewards")) in known or not reads
    }


def worth(shares: Sequence[float], values: Sequence[float]) -> float:
    """Expected value of a choice."""
    expected: float = sum(map(mul, shares, values))
    return expected


def step_pairs(pools: Sequence[Pool]) -> list[tuple[StepScore | None, Verdict | None]]:
    """The score and the ground truth of every step of every candidate."""
    return [
        pair
        for pool in pools
        for scores, truth in zip(pool.scores, pool.truth or (), strict=True)
        for pair in zip(scores, truth, strict=True)
    ]


def curve(pool: Pool, aggregation: Aggregation) -> dict[int, float]:
    """Exact expected accuracy of the best of n candidates drawn from the pool, for n of 1, 2, 4, ... and all.

    Draws only candidates that may be chosen, all of them if there are fewer than n. The curve starts at the accuracy of
    a random candidate and ends at that of the best of all.
    """
    groups: dict[float, list[float]] = defaultdict(list)
    for i, reward in ranking(pool.candidates, solution_rewards(pool.candidates, aggregation)).items():
        groups[reward].append(pool.values[i])
    # Ties: candidates with equal rewards are equally likely to be chosen, so each gets their mean value.
    ranked = [sum(group) / len(group) for _, group in sorted(groups.items(), reverse=True) for _ in group]
    return {n: expected_best_of(ranked, min(n, len(ranked))) for n in sizes(len(pool.candidates))}


def sizes(n: int) -> list[int]:
    """Powers of two below n, and n."""
    return [*(2**k for k in range((n - 1).bit_length())), n]


def _verdicts(stored: Sequence[Record | None]) -> tuple[Verdict | None, ...]:
    return tuple(Verdict(said["correct"], said["error_kind"]) if said else None for said in stored)


def refuse_uncounted(record: Record) -> None:
    """UserError for a record that does not count the tokens that the policy and the critic read."""
    if "policy_read" not in record["cost"]:
        raise UserError(
            f"{record['key']} does not count the tokens that the policy reads; remove the run folder and repeat the run"
        )


def _refuse_bad_scores(record: Record) -> None:
    stored = record["candidates"]
    if any(c["scores"] and len(c["scores"]) != len(c["solution"]["steps"]) for c in stored):
        raise UserError(
            f"{record['key']} does not have one score for each step; remove the run folder and repeat the run"
        )
    values = [value for c in stored for score in c["scores"] if score for value in score.values()]
    if not all(value is None or math.isfinite(value) for value in (*values, *(c["whole"] for c in stored))):
        raise UserError(f"{record['key']} has rewards that are not finite numbers; correct them or repeat the run")
