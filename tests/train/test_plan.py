"""The plan of batches: every row once in each epoch, under the budget, from a stream of row groups, at equal cost."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from train.loop.batches import cost, plan_epoch
from train.reward.mixture import drawn
from train.reward.planning import shuffled_windows
from vlprm.data.row_file import KEPT_BYTES

BUDGET, RANKS, WIDTH = 16_384, 16, 3584


def lengths(rows: int) -> list[int]:
    """Lengths as those of trees: mean 3,000 tokens, a long tail."""
    return [int(min(16_384, 600 + size)) for size in np.random.default_rng(0).gamma(1.6, 1500, rows)]


def padded(batch: Sequence[int], sizes: Sequence[int]) -> int:
    return len(batch) * max(sizes[i] for i in batch)


def test_batches_fill_the_budget_and_lose_nothing() -> None:
    sizes = lengths(2_000)
    plan = [plan_epoch(sizes, BUDGET, seed, [range(len(sizes))]) for seed in (0, 0, 1)]
    assert plan[0] == plan[1] != plan[2]
    assert sorted(i for batch in plan[0] for i in batch) == [*range(len(sizes))]
    assert all(padded(batch, sizes) <= BUDGET for batch in plan[0])
    assert sum(padded(batch, sizes) for batch in plan[0]) < 1.1 * sum(sizes)


def test_a_small_dataset_is_shuffled_as_a_whole() -> None:
    """The first batches of this seed: a change of their order changes every trained model."""
    plan = plan_epoch([10 + i % 7 for i in range(20)], 40, 3, shuffled_windows([0] * 20, [1000], 3))
    assert plan[:3] == [[12, 5], [11, 19], [1, 15, 8]]


@pytest.mark.parametrize(("ranks", "accumulate"), [(RANKS, 1), (RANKS, 2), (8, 4)])
def test_the_devices_of_a_step_have_equal_cost(ranks: int, accumulate: int) -> None:
    sizes = lengths(8_000)
    windows = [[*range(at, at + 1000)] for at in range(0, 8_000, 1000)]
    plan = plan_epoch(sizes, BUDGET, 0, windows, ranks * accumulate, WIDTH)
    assert sorted(i for batch in plan for i in batch) == [*range(len(sizes))]
    assert len(plan) % (ranks * accumulate) == 0
    costs = np.array([cost(len(batch), max(sizes[i] for i in batch), WIDTH) for batch in plan]).reshape(-1, ranks)
    assert costs.mean() / costs.max(axis=1).mean() >= 0.95


def test_a_window_takes_whole_row_groups_and_bounded_bytes() -> None:
    group_bytes = [random.Random(i).randrange(KEPT_BYTES // 3) for i in range(40)] + [2 * KEPT_BYTES]
    homes = [group for group in range(41) for _ in range(5)]
    windows = shuffled_windows(homes, group_bytes, 0)
    assert sorted(row for window in windows for row in window) == [*range(len(homes))]
    of_windows = [{homes[row] for row in window} for window in windows]
    assert sum(map(len, of_windows)) == 41
    assert all(sum(group_bytes[g] for g in groups) <= KEPT_BYTES or groups == {40} for groups in of_windows)
    assert windows != shuffled_windows(homes, group_bytes, 1)
    assert max(map(len, of_windows)) > 3


def test_an_epoch_of_a_mixture_takes_each_dataset_as_often_as_its_weight_says() -> None:
    parts = np.array([0] * 10 + [1] * 8 + [2] * 6)
    first, again, other = (drawn(parts, [1.0, 0.5, 2.0], seed) for seed in (0, 0, 1))
    assert first.tolist() == again.tolist()
    assert sorted(first[parts[first] == 0]) == [*range(10)]
    halves = [set(taken[parts[taken] == 1].tolist()) for taken in (first, other)]
    assert [len(half) for half in halves] == [4, 4]
    assert halves[0] != halves[1]
    assert sorted(first[parts[first] == 2]) == sorted([*range(18, 24)] * 2)
    assert drawn(parts, [1.0, 1.0, 1.0], 3).tolist() == [*range(24)], "without weights, the order is the dataset's"
