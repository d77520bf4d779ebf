"""Workers of a Ray cluster get the devices that their models need, whatever the driving machine has."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from tests.ray_nodes import two_nodes
from vlprm.errors import UserError
from vlprm.policy.open import placed
from vlprm.runs.ray import Cluster, Work, on_ray
from vlprm.serving.config import ModelConfig


@asynccontextmanager
async def visible() -> AsyncIterator[Work[str, str]]:
    """Work that says which GPUs its process may use."""

    async def work(unit: Sequence[str]) -> list[str]:
        if "fault" in unit:
            raise UserError("the worker refuses; correct it")
        return [os.environ.get("CUDA_VISIBLE_DEVICES", "all") for _ in unit]

    yield work


def seen(units: list[list[str]], cluster: Cluster) -> list[str]:
    results: list[str] = []
    asyncio.run(on_ray(units, visible, results.extend, cluster, asyncio.Event()))
    return results


@pytest.mark.slow
def test_a_head_without_a_gpu_drives_workers_with_one_each() -> None:
    """Ray grants a GPU only to an actor that asks for it, and hides the others from it."""
    units = [[str(i)] for i in range(8)]
    with two_nodes(gpus=1) as address:
        for devices in (("auto",), ("cuda", "cuda")):
            assert seen(units, Cluster(address, 2, devices, 1)) == ["0"] * 8
        assert set(seen(units, Cluster(address, 2, ("cpu",), 1))) & {"0"} == set()
        with pytest.raises(UserError, match=r"^the worker refuses; correct it$"):
            seen([["fault"]], Cluster(address, 1, ("cpu",), 1))


def test_the_driver_of_a_cluster_need_not_have_the_device() -> None:
    there = ModelConfig("builtin/policy", device="cuda:1")
    assert placed(there, "auto") == there
    assert placed(ModelConfig("builtin/policy"), "auto").device == "auto"
    with pytest.raises(UserError, match="unknown dtype 'half'"):
        placed(ModelConfig("builtin/policy", dtype="half"), "auto")
