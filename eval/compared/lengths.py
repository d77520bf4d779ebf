"""Longer chains against more chains: what the vote gains from each, on stored candidates.

A limit of tokens is applied to finished candidates: a longer one would have been cut, so it has no answer and costs the
limit. That is exact for candidates of one turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from eval.runs.pools import Pool, sizes, worth
from eval.runs.results import Key
from vlprm.metrics import bootstrap_interval, grouped_interval
from vlprm.search.select import majority

QUANTILES = 4


def by_length(pools: Mapping[Key, Pool], n: int) -> list[dict[str, Any]]:
    """Accuracy of the candidates in each quarter of lengths, with intervals over problems. Candidates without an answer
    are not right."""
    lengths = [sampled for pool in pools.values() for sampled, _, _ in pool.spent[:n]]
    edges = np.quantile(lengths, np.arange(1, QUANTILES) / QUANTILES)
    found = []
    for quarter in range(QUANTILES):
        groups = [
            [(sampled, right) for (sampled, _, _), right in zip(pool.spent[:n], pool.right[:n], strict=True)
             if np.searchsorted(edges, sampled) == quarter] for pool in pools.values()
        ]  # fmt: skip
        kept = [group for group in groups if group]
        if not kept:
            continue
        values = [[float(right is True) for _, right in group] for group in kept]
        tokens = [sampled for group in kept for sampled, _ in group]
        found.append({
            "tokens": [min(tokens), max(tokens)],
            "candidates": len(tokens),
            "no_answer": sum(right is None for group in kept for _, right in group),
            "accuracy": float(np.mean([value for group in values for value in group])),
            "ci": list(grouped_interval(values)),
        })  # fmt: skip
    return found


def longer_half(pools: Mapping[Key, Pool], n: int) -> dict[str, Any]:
    """Within a problem: accuracy of the candidates that are longer than its median less that of the shorter ones, with
    its interval over the problems that have both."""
    apart = []
    for pool in pools.values():
        lengths = [sampled for sampled, _, _ in pool.spent[:n]]
        middle, values = float(np.median(lengths)), pool.values[:n]
        longer = [value for value, length in zip(values, lengths, strict=True) if length > middle]
        shorter = [value for value, length in zip(values, lengths, strict=True) if length < middle]
        if longer and shorter:
            apart.append(float(np.mean(longer) - np.mean(shorter)))
    return {"difference": [float(np.mean(apart)), *bootstrap_interval(apart)] if apart else None, "of": len(apart)}


def limits_and_chains(pools: Mapping[Key, Pool], n: int) -> dict[str, Any]:
    """The vote's accuracy and tokens for each limit of tokens (quarters of all lengths) and number of chains; and for
    each budget, the tokens of 1, 2, 4, ... chains without a limit, the most accurate cell within it, with its paired
    difference to those chains. The cell is chosen on the problems that it is measured on, so the difference is an upper
    bound."""
    lengths = [sampled for pool in pools.values() for sampled, _, _ in pool.spent[:n]]
    limits = sorted({int(limit) for limit in np.quantile(lengths, np.arange(1, QUANTILES + 1) / QUANTILES)})
    cells = [_cell(list(pools.values()), limit, chains) for limit in limits for chains in sizes(n)]
    best = []
    for whole in (cell for cell in cells if cell["limit"] == limits[-1]):
        within = [cell for cell in cells if cell["tokens"] <= whole["tokens"]]
        most = max(within, key=lambda cell: (cell["accuracy"], -cell["tokens"]))
        apart = np.subtract(most["values"], whole["values"])
        found = {name: most[name] for name in ("limit", "chains", "tokens", "accuracy")}
        difference = [float(apart.mean()), *bootstrap_interval(apart)]
        best.append({"budget": whole["tokens"], "whole_chains": whole["chains"], **found, "difference": difference})
    shown = [{name: value for name, value in cell.items() if name != "values"} for cell in cells]
    return {"cells": shown, "best_at_equal_tokens": best}


def _cell(pools: Sequence[Pool], limit: int, chains: int) -> dict[str, Any]:
    values, tokens = [], []
    for pool in pools:
        spent, candidates = pool.spent[:chains], pool.candidates[:chains]
        cut = [replace(c, answer=None) if sampled > limit else c
               for c, (sampled, _, _) in zip(candidates, spent, strict=True)]  # fmt: skip
        kept = [0.0 if c.answer is None else value for c, value in zip(cut, pool.values, strict=False)]
        values.append(worth(majority(cut), kept))
        # A cut candidate has read the part of its crops that it has written.
        tokens.append(pool.prompt + sum(min(s, limit) + r * min(1.0, limit / max(s, 1)) for s, r, _ in spent))
    accuracy, interval = float(np.mean(values)), list(bootstrap_interval(values))
    return {"limit": limit, "chains": chains, "tokens": float(np.mean(tokens)), "accuracy": accuracy,
            "ci": interval, "values": values}  # fmt: skip
