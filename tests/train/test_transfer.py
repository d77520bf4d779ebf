"""Batches cross from a data loader's process in one piece, unchanged."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from train.loop.transfer import Batch

BATCH = Batch(
    ids=["a", "b"],
    flags=torch.tensor([[True, False, True]]),
    scalar=torch.tensor(2.5, dtype=torch.float64),
    none=torch.empty(0, 4),
    halves=torch.arange(7, dtype=torch.bfloat16),
    turned=torch.arange(12).view(3, 4).T,
)


def _same(item: list[Batch]) -> Batch:
    return item[0]


def test_a_batch_is_the_same_after_it_crossed() -> None:
    batches: Any = [BATCH]
    loader: Any = DataLoader(batches, collate_fn=_same, num_workers=1, multiprocessing_context="fork")
    (crossed,) = loader
    assert list(crossed) == list(BATCH)
    assert crossed["ids"] == ["a", "b"]
    for name in ("flags", "scalar", "none", "halves", "turned"):
        assert crossed[name].dtype == BATCH[name].dtype
        assert torch.equal(crossed[name], BATCH[name])


def test_one_tensor_crosses() -> None:
    _, (packed, layout, others, order) = BATCH.__reduce__()
    assert isinstance(packed, Tensor)
    assert [name for name, *_ in layout] == ["flags", "scalar", "none", "halves", "turned"]
    assert others == {"ids": ["a", "b"]}
    assert order == list(BATCH)
