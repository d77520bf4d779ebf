"""Curves of a report: accuracy by the number of candidates, calibration of step rewards, and the course of training."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from eval.runs.pools import Pool, curve, sizes, step_pairs
from vlprm import metrics
from vlprm.metrics import bootstrap_interval, expected_best_of
from vlprm.runs.folder import json_object
from vlprm.runs.journal import placed_lines
from vlprm.schema import Aggregation
from vlprm.search.select import choosable
from vlprm.viewer.names import HELD_OUT

MOST_VOTERS = 32  # the exact vote takes time that grows with the cube of the number of candidates

Curve = dict[str, dict[str, Any]]  # by number of candidates


def accuracy_curves(pools: Sequence[Pool], aggregation: Aggregation, scored: bool) -> dict[str, Curve]:
    """Exact expected accuracy with n candidates drawn from the pools, with intervals over problems: the majority vote,
    the oracle and, if `scored`, best-of-n. No vote for pools that are too large for it."""
    if not pools:
        return {}
    kinds: dict[str, Callable[[Pool], dict[int, float]]] = {"oracle": oracle_curve}
    if max(len(pool.candidates) for pool in pools) <= MOST_VOTERS:
        kinds = {"majority": vote_curve, **kinds}
    if scored:
        kinds = {f"prm_{aggregation}": lambda pool: curve(pool, aggregation), **kinds}
    return {name: mean_of(list(map(of_pool, pools))) for name, of_pool in kinds.items()}


def mean_of(curves: Sequence[dict[int, float]]) -> Curve:
    """The mean of the curves with its interval, for each n that all have."""
    shared = sorted(set.intersection(*map(set, curves)))
    values = {n: [of_pool[n] for of_pool in curves] for n in shared}
    return {str(n): {"accuracy": float(np.mean(v)), "ci": list(bootstrap_interval(v))} for n, v in values.items()}


def oracle_curve(pool: Pool) -> dict[int, float]:
    """How often one of n candidates is right."""
    values = sorted((pool.values[i] for i in choosable(pool.candidates)), reverse=True)
    return {n: expected_best_of(values, min(n, len(values))) for n in sizes(len(pool.candidates))}


def vote_curve(pool: Pool) -> dict[int, float]:
    """How often the most common answer of n candidates is right; answers with equally many votes are equally likely to
    be chosen."""
    groups: dict[str | int, list[float]] = defaultdict(list)
    for i in choosable(pool.candidates):
        answer = pool.candidates[i].answer
        groups[i if answer is None else answer].append(pool.values[i])
    votes = tuple(sorted((len(values), sum(values) / len(values)) for values in groups.values()))
    voters = sum(count for count, _ in votes)
    return {n: expected_vote(votes, min(n, voters)) for n in sizes(len(pool.candidates))}


@lru_cache(maxsize=100_000)
def expected_vote(votes: tuple[tuple[int, float], ...], n: int) -> float:
    """Expected correctness of the vote of n candidates drawn without replacement; `votes` has the count and the
    correctness of each answer."""
    total = 0.0
    for at, (count, right) in enumerate(votes):
        others = [other for i, (other, _) in enumerate(votes) if i != at]
        for most in range(1, min(count, n) + 1) if right else ():
            for tied, ways in _ways(others, n - most, most).items():
                total += right * math.comb(count, most) * ways / (tied + 1)
    return total / math.comb(sum(count for count, _ in votes), n)


def _ways(counts: Sequence[int], n: int, most: int) -> Counter[int]:
    """By the number of answers with exactly `most` votes: the ways to draw n candidates with no answer above `most`."""
    found: Counter[tuple[int, int]] = Counter({(0, 0): 1})  # drawn so far, and answers with `most` votes
    for count in counts:
        more: Counter[tuple[int, int]] = Counter()
        for (drawn, tied), ways in found.items():
            for k in range(min(count, most, n - drawn) + 1):
                more[drawn + k, tied + (k == most)] += ways * math.comb(count, k)
        found = more
    return Counter({tied: ways for (drawn, tied), ways in found.items() if drawn == n})


def reliability(pools: Sequence[Pool]) -> list[list[float]]:
    """Mean reward, share of right steps and number of steps, by tenths of the reward. The pools must have a ground
    truth."""
    known = [(score, truth) for score, truth in step_pairs(pools) if score is not None and truth is not None]
    return metrics.reliability([score.correct for score, _ in known], [truth.correct for _, truth in known])


def training_of(folder: Path) -> dict[str, Any]:
    """The course of the training run in this folder: loss, held-out loss and the last held-out measures from
    `metrics.jsonl`; `curves.json`, if it is there, has curves of its own. Empty if there is neither."""
    path = folder / "metrics.jsonl"
    lines = placed_lines(path) if path.is_file() else ()
    records = [json.loads(line) for _, line in lines if line.endswith(b"\n")]
    curves: dict[str, Any] = {
        "loss": [[r["step"], r["loss"]] for r in records if "loss" in r],
        "held_out": [[r["step"], r["eval_loss"]] for r in records if "eval_loss" in r],
    }
    curves |= {name: points for name, points in json_object(folder / "curves.json").items() if points}
    found = {name: points for name, points in curves.items() if points}
    last = next((r for r in reversed(records) if "eval_loss" in r), None)
    return {**found, "last": {name: last[name] for name in HELD_OUT if name in last}} if last else found
