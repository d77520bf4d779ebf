"""Select solutions of a tree. The judge and training read a tree's solutions in the same order, so that training learns
from judged ones."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from vlprm.labels.judge_reliability import MIN_VALID
from vlprm.schema import StepLabel


def is_counted(label: StepLabel) -> bool:
    """Whether a step has enough rollouts to estimate its value."""
    return label.mc_valid >= MIN_VALID


def in_order(
    paths: Sequence[Sequence[int]], right: Sequence[bool | None], counted: set[int], most: int | None = None
) -> list[int]:
    """Indices of at most `most` solutions to read, in order.

    Wrong and right solutions alternate. The next of each kind is the one whose path adds the most `counted` steps, then
    the most steps, to those already covered. Solutions without a result are read only if all are: many datasets do not
    say whether an answer is right.
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
            # Gains only shrink, so the first one with an unchanged gain has the largest.
            while (now := gain(heap[0][2])) != heap[0]:
                heapq.heapreplace(heap, now)
            order.append(heapq.heappop(heap)[2])
            covered.update(paths[order[-1]])
            if len(order) == most:
                return order
    return order
