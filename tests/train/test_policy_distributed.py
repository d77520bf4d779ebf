"""Two processes (gloo, CPU), each with the whole policy or a shard, learn what one does. All policy commands share the
trainer."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file

from tests.train.rollouts import COUNT, READ, RED, ZOOM
from tests.train.two_processes import in_two, one_thread, variables
from train import dpo
from train.policy.config import DpoConfig
from train.policy.pairs import Pair, PairTree, write_pairs
from vlprm.runs.config import parse
from vlprm.tasks import TASKS

KINDS = {kind: variables(kind) for kind in ("multi_gpu", "fsdp2")}


def learn(process: PartialState | None, environment: dict[str, str], config: Path) -> None:
    os.environ.update(environment)
    dpo.main(parse(DpoConfig, ["--config", str(config)]))


def config_of(folder: Path, policy: Path, accumulate: int) -> Path:
    """A config file, to learn the pairs of four problems in two optimizer steps."""
    folder.mkdir()
    problems = [TASKS["count_grid"].problem("train", i) for i in range(4)]
    steps, parents = (ZOOM, READ, COUNT, RED), (-1, 0, 0, 1)
    write_pairs(folder / "pairs.parquet", [PairTree(p, steps, parents, (Pair(1, 2, 1.0, 0.0),)) for p in problems])
    config = {
        "pairs": str(folder / "pairs.parquet"), "run": str(folder / "run"), "policy": str(policy),
        "batch_tokens": 1, "accumulate": accumulate, "learning_rate": 1e-4, "warmup": 0.0,
    }  # fmt: skip
    path = folder / "dpo.yaml"
    path.write_text(json.dumps(config))
    return path


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one(tiny_backbone: Callable[[str], Path], tmp_path: Path) -> None:
    policy = tiny_backbone("qwen2_5_vl")
    with one_thread():
        learn(None, {}, config_of(tmp_path / "alone", policy, 2))
    expected, start = load_file(tmp_path / "alone/run/model.safetensors"), load_file(policy / "model.safetensors")
    assert any(not torch.equal(start[key], expected[key]) for key in expected)
    for kind, environment in KINDS.items():
        in_two(learn, environment, config_of(tmp_path / kind, policy, 1))
        found = load_file(tmp_path / kind / "run/model.safetensors")
        assert set(found) == set(expected)
        assert max(float((found[key] - expected[key]).abs().max()) for key in expected) < 1e-6
