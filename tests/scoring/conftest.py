"""Fixtures of the scorers' tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vlprm.model.loading import Checkpoint
from vlprm.model.reward_loading import load_reward_model


@pytest.fixture(scope="module")
def checkpoint(backbone: Path) -> Checkpoint:
    """A step-reward model that reads surprise, with a random head of some size: its scores differ."""
    made = load_reward_model(backbone, new_head="step", reads_surprise=True)
    torch.nn.init.normal_(made.model.score.weight, std=0.2, generator=torch.Generator().manual_seed(0))
    return made
