"""A real Ray cluster of two nodes on this machine, and the processes of its actors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest


@contextmanager
def two_nodes(gpus: int = 0) -> Iterator[str]:
    """The address of a cluster with a head that runs no work and has no GPU, and two nodes with one CPU and this many
    GPUs each. The GPUs exist in Ray's books alone."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # it would report usage statistics
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0})
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1, num_gpus=gpus)
            yield cluster.address
        finally:
            cluster.shutdown()


def a_worker() -> psutil.Process:
    """A running actor of this process's cluster."""
    return next(p for p in psutil.Process().children(recursive=True) if _title(p).startswith("ray::Worker"))


def _title(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:  # it has ended since it was listed
        return ""
