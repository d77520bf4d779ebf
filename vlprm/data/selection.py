"""Which solutions of a tree are read. A judge is asked about the first so many, and training learns from the first so
many, so that what is learnt was judged."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from vlprm.labels.judge_reliability import MIN_VALID
from vlprm.schema import StepLabel


def is_counted(label: StepLabel) -> bool:
    """Whether the rollouts from a step are enough to tell its value."""
    return label.mc_valid >= MIN_VALID


def in_order(
    paths: Sequence[Sequence[int]], right: Sequence[bool | None], counted: set[int], most: int | None = None
) -> list[int]:
    """Places of the solutions that are read, in order; no more than `most`.

    Wrong and right ones take turns. Of each kind the next one is that whose path has the most `counted` steps, and then
    the most steps, which none before it has. Those without a result are read only if all are without one: many datasets
    do not say whether an answer is right.
    """
    covered: set[int] = set()

    def gain(i: int) -> tuple[int, int, int]:
        fresh = [node for node in paths[i] if node not in covered]
        return -sum(node in counted for node in fresh), -len(fresh), i

    kinds = [[gain(i) for i, outcome in enumerate(right) if outcome is kind] for kind in (False, True)]
    if not any(kinds):
        kinds = [[gain(i) for i in range(len(paths))]]
    for heap in kinds:
        heapq.heapify(heap)
    order: list[int] = []
    while any(kinds):
        for heap in filter(None, kinds):
            # Gains only shrink, so the first whose gain is still what it was has the largest.
            while (now := gain(heap[0][2])) != heap[0]:
                heapq.heapreplace(heap, now)
            order.append(heapq.heappop(heap)[2])
            covered.update(paths[order[-1]])
            if len(order) == most:
                return order
    return order
