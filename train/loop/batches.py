"""Plan batches of training rows under a token budget."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vlprm.errors import UserError
from vlprm.model.packing import Node, padded_batches

SORTED_RUN = 16  # rows are sorted by length within runs of about this many batches for each batch of a step


def plan_epoch(
    sizes: Sequence[int], budget: int, seed: int, windows: Sequence[Sequence[int]], per_step: int = 1, width: int = 1
) -> list[list[int]]:
    """Split all rows into batches of at most `budget` tokens, padding included; a longer row is a batch of its own.
    The number of batches is a multiple of `per_step`, and the batches of a step have about equal cost (for a model of
    this `width`). UserError if there are too few rows.

    The rows of a window are drawn in random runs and sorted by length within each run, to reduce padding. The steps are
    then shuffled, so that their order does not depend on length.
    """
    rng = random.Random(seed)
    of_windows = evened([_batches_of(window, sizes, budget, rng, per_step) for window in windows], per_step)
    steps: list[list[list[int]]] = []
    waiting: list[list[int]] = []
    for batches in of_windows:
        waiting += batches
        if per_step > 1:
            waiting.sort(key=lambda batch: cost(len(batch), max(sizes[i] for i in batch), width))
        spare = len(waiting) % per_step  # the cheapest wait for others like them
        found = [waiting[i : i + per_step] for i in range(spare, len(waiting), per_step)]
        waiting = waiting[:spare]
        steps += rng.sample(found, len(found))
    return [batch for step in steps for batch in step]


def cost(rows: int, tokens: int, width: int) -> int:
    """The relative cost of a batch of rows of this padded length: linear layers and attention of a layer of this width
    take about 72 T d^2 and 12 T^2 d operations for T tokens, forward and backward."""
    return rows * tokens * (6 * width + tokens)


def _batches_of(
    window: Sequence[int], sizes: Sequence[int], budget: int, rng: random.Random, per_step: int
) -> list[list[int]]:
    runs: list[list[int]] = [[]]
    tokens = 0
    for i in rng.sample(window, len(window)):
        if tokens > SORTED_RUN * per_step * budget:
            runs.append([])
            tokens = 0
        runs[-1].append(i)
        tokens += sizes[i]
    return [[run[k] for k in batch] for run in runs for batch in padded_batches([sizes[i] for i in run], budget)]


def evened(of_windows: Sequence[list[list[int]]], multiple: int) -> list[list[list[int]]]:
    """Halve the largest batches until their number is a multiple of `multiple`; otherwise the Trainer would repeat rows
    to give every device a batch. UserError if there are too few rows."""
    windows = [[*batches] for batches in of_windows]
    while (total := sum(map(len, windows))) % multiple:
        window, at = max(
            ((w, i) for w, of in enumerate(windows) for i in range(len(of))), key=lambda p: len(windows[p[0]][p[1]])
        )
        rows = windows[window][at]
        if len(rows) < 2:
            raise UserError(
                f"{total} rows do not fill steps of {multiple} batches; use fewer devices, or lower accumulate"
            )
        windows[window][at : at + 1] = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return windows


def model_inputs(batch: Mapping[str, Any], not_inputs: Collection[str]) -> dict[str, Any]:
    """The model's inputs in a batch: all but the values with these keys."""
    return {name: value for name, value in batch.items() if name not in not_inputs}


def token_lengths(nodes: Sequence[Node]) -> tuple[int, int]:
    """Number of tokens of a row, and of its longest path."""
    depths: list[int] = []
    for node in nodes:
        depths.append(len(node.segment.ids) + (depths[node.parent] if node.parent >= 0 else 0))
    return sum(len(node.segment.ids) for node in nodes), max(depths)
