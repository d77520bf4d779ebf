"""The pool of candidates of one problem, from the record of eval.run: what each selector chooses, and the curve of the
best of n. Whatever a table, a report or a page says of a pool is made here."""

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
from vlprm.search.select import Candidate, Selector, ranking, selectors, solution_rewards
from vlprm.search.tokens import tokens_of_first

Record = dict[str, Any]
# Methods that choose from `n` whole samples: they have one pool, and one record.
POOLED = ("pass_at_1", "self_consistency", "best_of_n", "weighted_majority")
# What a selector reads of a candidate beside its answer; all others read the rewards of its steps.
READS = {"random": "", "majority": "", "whole_solution": "whole", "likeliest": "surprise"}


@dataclass(frozen=True)
class Pool:
    """The candidates of one problem, in the order of sampling.

    `right` is None for a *no result*; `first` are the tokens of the first 1, 2, ... candidates. Of each candidate's
    steps, `scores` has None for one that could not be scored, and `truth` for one that does not parse; `truth` is None
    where the task does not know it, and both are empty where only candidates were asked for.
    """

    benchmark: str
    problem: str
    question_type: str
    candidates: tuple[Candidate, ...]
    right: tuple[bool | None, ...]
    first: tuple[int, ...] = ()
    scores: tuple[tuple[StepScore | None, ...], ...] = ()
    truth: tuple[tuple[Verdict | None, ...], ...] | None = None

    @property
    def values(self) -> list[float]:
        """How right each candidate is: a *no result* is not."""
        return [float(right is True) for right in self.right]

    @property
    def every_step(self) -> list[float]:
        """Whether the answer is right and so is every step, of a task that knows."""
        assert self.truth is not None
        known = zip(self.right, self.truth, strict=True)
        return [float(right is True and all(v is not None and v.correct for v in steps)) for right, steps in known]

    @property
    def is_mixed(self) -> bool:
        """Some answers are right and some are wrong; a candidate without one is neither."""
        return {True, False} <= set(self.right)


def pool_of(record: Record, steps: bool = False) -> Pool:
    """The pool of a record; with `steps`, also what is known of each step, which takes memory. UserError where a score
    is missing, or is not a finite number."""
    stored = record["candidates"]
    scores: tuple[tuple[StepScore | None, ...], ...] = ()
    truth: tuple[tuple[Verdict | None, ...], ...] | None = ()
    if steps:
        _refuse_bad_scores(record)
        scores = tuple(_step_scores(c) for c in stored)
        truth = None if any(c["truth"] is None for c in stored) else tuple(_verdicts(c["truth"]) for c in stored)
    return Pool(
        record["benchmark"],
        record["problem"],
        "/".join(filter(None, (record["benchmark"], record["question_type"]))),
        tuple(map(candidate_of, stored)),
        tuple(c["right"] for c in stored),
        tuple(tokens_of_first([c["solution"]["tokens"] for c in stored], [c["read"] for c in stored])),
        scores,
        truth,
    )


def candidate_of(stored: Record) -> Candidate:
    """What selectors know of a stored candidate."""
    scores = stored["scores"]
    known = [score for score in scores if score]
    rewards = tuple(score["correct"] for score in known) if known and len(known) == len(scores) else None
    surprise = max((score["surprise"] for score in known if score["surprise"] is not None), default=None)
    return Candidate(stored["vote"], rewards, stored["whole"], surprise)


def known_selectors(pools: Iterable[Pool], aggregation: Aggregation) -> dict[str, Selector]:
    """The selectors that find what they read in some candidate of these pools."""
    candidates = [candidate for pool in pools for candidate in pool.candidates]
    known = {name for name in ("rewards", "whole", "surprise") if any(getattr(c, name) is not None for c in candidates)}
    return {
        name: selector
        for name, selector in selectors(aggregation).items()
        if (reads := READS.get(name, "rewards")) in known or not reads
    }


def worth(shares: Sequence[float], values: Sequence[float]) -> float:
    """What a choice is worth, in expectation."""
    expected: float = sum(map(mul, shares, values))
    return expected


def curve(pool: Pool, aggregation: Aggregation) -> dict[int, float]:
    """Exact expected accuracy of the best of n candidates drawn from the pool, for n of 1, 2, 4, ... and all.

    They are drawn from those that may be chosen, and are all of them where there are fewer than n: the curve opens at
    the accuracy of a random candidate and ends at that of the best of all.
    """
    groups: dict[float, list[float]] = defaultdict(list)
    for i, reward in ranking(pool.candidates, solution_rewards(pool.candidates, aggregation)).items():
        groups[reward].append(pool.values[i])
    # Those of equal reward each have their mean: none of them is chosen before another.
    ranked = [sum(group) / len(group) for _, group in sorted(groups.items(), reverse=True) for _ in group]
    return {n: expected_best_of(ranked, min(n, len(ranked))) for n in sizes(len(pool.candidates))}


def sizes(n: int) -> list[int]:
    """Powers of two below n, and n."""
    return [*(2**k for k in range((n - 1).bit_length())), n]


def _step_scores(stored: Record) -> tuple[StepScore | None, ...]:
    return tuple(score and StepScore(**score) for score in stored["scores"])


def _verdicts(stored: Sequence[Record | None]) -> tuple[Verdict | None, ...]:
    return tuple(Verdict(said["correct"], said["error_kind"]) if said else None for said in stored)


def _refuse_bad_scores(record: Record) -> None:
    stored = record["candidates"]
    if any(c["scores"] and len(c["scores"]) != len(c["solution"]["steps"]) for c in stored):
        raise UserError(f"{record['key']} does not have one score for each step; remove its run and run it again")
    values = [value for c in stored for score in c["scores"] if score for value in score.values()]
    if not all(value is None or math.isfinite(value) for value in (*values, *(c["whole"] for c in stored))):
        raise UserError(f"{record['key']} has rewards that are not finite numbers; correct them or run it again")
