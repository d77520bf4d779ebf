"""Plan batches of training rows under a token budget."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from vlprm.errors import UserError
from vlprm.model.packing import Node, padded_batches

SORTED_RUN = 16  # rows are sorted by length within runs of about this many batches

T = TypeVar("T")


def plan_batches(examples: Sequence[T], sizes: Sequence[int], budget: int, seed: int) -> list[list[T]]:
    """Split all examples into shuffled batches of at most `budget` tokens, padding included.

    Examples are drawn in random runs and sorted by length within each run, to reduce padding. The batches are then
    shuffled, so that their order does not depend on length.
    """
    rng = random.Random(seed)
    order = rng.sample(range(len(examples)), len(examples))
    runs: list[list[int]] = [[]]
    for i in order:
        if sum(sizes[k] for k in runs[-1]) > SORTED_RUN * budget:
            runs.append([])
        runs[-1].append(i)
    batches = [[run[k] for k in batch] for run in runs for batch in padded_batches([sizes[i] for i in run], budget)]
    return [[examples[i] for i in batch] for batch in rng.sample(batches, len(batches))]


def evened(batches: Sequence[list[T]], multiple: int) -> list[list[T]]:
    """Halve the largest batches until their number is a multiple of `multiple`; otherwise the Trainer would repeat rows
    to give every device a batch. UserError if there are too few rows."""
    batches = list(batches)
    while len(batches) % multiple:
        largest = max(range(len(batches)), key=lambda i: len(batches[i]))
        rows = batches[largest]
        if len(rows) < 2:
            raise UserError(
                f"{len(batches)} rows do not fill steps of {multiple} batches; use fewer devices, or lower accumulate"
            )
        batches[largest : largest + 1] = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return batches


def token_lengths(nodes: Sequence[Node]) -> tuple[int, int]:
    """Number of tokens of a row, and of its longest path."""
    depths: list[int] = []
    for node in nodes:
        depths.append(len(node.segment.ids) + (depths[node.parent] if node.parent >= 0 else 0))
    return sum(len(node.segment.ids) for node in nodes), max(depths)
