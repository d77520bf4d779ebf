"""Results of the CPU hold on a GPU, in float32. `make gpu-check` runs these first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.learnt import load_trees
from tests.scoring.test_reading import candidates
from tests.train.test_losses import ALL, assert_same, gradient, trained
from train.reward.config import RowsConfig
from train.reward.data import labelled_row
from vlprm.scoring.tree import score

pytestmark = pytest.mark.gpu

BOUND = 1e-4
families = pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Turns off TF32 and other reduced-precision products."""
    parts = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [part.fp32_precision for part in parts]
    for part in parts:
        part.fp32_precision = "ieee"
    yield
    for part, precision in zip(parts, before, strict=True):
        part.fp32_precision = precision


@families
@pytest.mark.parametrize("head", ["step", "verdict"])
def test_trees_have_the_loss_and_gradients_of_the_cpu(
    tiny_backbone: Callable[[str], Path], dataset: Path, family: str, head: str
) -> None:
    """The GPU uses FlexAttention, the CPU a dense mask."""
    trees, found = load_trees(dataset, RowsConfig())[:5], []
    for device in ("cpu", "cuda"):
        checkpoint = trained(tiny_backbone(family), head)
        checkpoint.model.to(device)
        rows = [labelled_row(tree, checkpoint.inputs, ALL, {}) for tree in trees]
        assert any(row.row.branches for row in rows)
        found.append(gradient(checkpoint, [rows], ALL))
    assert_same(found[1], found[0], BOUND)


@families
def test_candidates_have_the_scores_of_the_cpu(tiny_backbone: Callable[[str], Path], family: str) -> None:
    checkpoint, asked = trained(tiny_backbone(family)), candidates()
    here = score(checkpoint, asked)
    checkpoint.model.to("cuda")
    assert score(checkpoint, asked) == [pytest.approx(rewards, abs=BOUND) for rewards in here]
