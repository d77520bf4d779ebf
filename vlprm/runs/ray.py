"""Work on a Ray cluster: each actor opens what it needs (a policy, a reward model) and takes units of work; only this
process writes results.

A worker that dies is restarted together with its units. Every node needs the code and the checkpoints at the same paths
(a shared file system, or an installed package).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from vlprm.errors import UserError
from vlprm.runs.recipes import ROOT
from vlprm.runs.window import in_window

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[Sequence[T]], Awaitable[list[R]]]
Opened = Callable[[], AbstractAsyncContextManager[Work[T, R]]]


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster and how it is used: its address (`auto`: the cluster of this machine), the number of actors, the
    devices of an actor's models, and units that an actor works on at once. An actor with a model takes one unit at a
    time: two would share batches, and the results would depend on which came first."""

    address: str
    workers: int
    devices: tuple[str, ...]
    at_once: int


class Worker:
    """An actor. It opens its work with the first unit."""

    def __init__(self, opened: Opened[Any, Any]) -> None:
        self.opened = opened
        self.work: Work[Any, Any] | None = None
        self.open = AsyncExitStack()  # kept open: a policy is closed when its context is garbage collected
        self.opening = asyncio.Lock()

    async def do(self, unit: Sequence[Any]) -> list[Any]:
        """Work on a unit and return its results."""
        async with self.opening:
            if self.work is None:
                self.work = await self.open.enter_async_context(self.opened())
        return await self.work(unit)


async def on_ray(
    units: Iterable[Sequence[T]],
    opened: Opened[T, R],
    write: Callable[[list[R]], None],
    cluster: Cluster,
    stopping: asyncio.Event,
) -> None:
    """Give the units to actors, which get their work function from `opened`, and `write` the results of each finished
    unit. Arguments are pickled. UserError if Ray is not installed or no cluster answers, or of an actor."""
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UserError("a Ray cluster needs the package ray; pip install 'vlprm[ray]'") from error
    _connect(ray, cluster.address)
    gpus = _gpus(cluster, int(ray.cluster_resources().get("GPU", 0)))
    actor = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=-1, max_task_retries=-1,
                       max_concurrency=cluster.at_once)(Worker)  # fmt: skip
    free = [actor.remote(opened) for _ in range(cluster.workers)] * cluster.at_once

    async def done(unit: Sequence[T]) -> list[R]:
        worker = free.pop()
        try:
            return list(await worker.do.remote(unit))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise
        finally:
            free.append(worker)

    try:
        async for results in in_window(units, done, len(free), stopping):
            write(results)
    finally:
        ray.shutdown()


def gpus_per_worker(devices: Iterable[str], of_cluster: int) -> int:
    """The GPUs that an actor asks for: one for each CUDA device of its models. `auto` is a GPU if the cluster has
    one."""
    cuda = {"cuda" if device == "auto" and of_cluster else device for device in devices}
    return sum(device.startswith("cuda") for device in cuda)


def _gpus(cluster: Cluster, of_cluster: int) -> int:
    gpus = gpus_per_worker(cluster.devices, of_cluster)
    if "auto" in cluster.devices and not gpus:
        log.info("the cluster has no GPU, so device auto is the CPU; with device cuda, workers wait for a GPU")
    log.info("%d workers, each with %d GPUs; the cluster has %d GPUs now", cluster.workers, gpus, of_cluster)
    if gpus * cluster.workers > of_cluster:
        log.warning("%d GPUs are needed; workers without one wait until the cluster has more", gpus * cluster.workers)
    return gpus


def _connect(ray: Any, address: str) -> None:
    """Connect from the folder of our packages. Ray puts the driver's working directory first on a worker's import path,
    where a user's own `train.py` or `eval/` would hide ours; the user's modules (a task, a method) come after ours."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH"), os.getcwd()]))
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host:  # checked first, because Ray itself retries for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        with contextlib.chdir(ROOT):
            ray.init(address, runtime_env={"env_vars": {"PYTHONPATH": path}}, log_to_driver=False)
    except (OSError, ValueError) as error:
        raise UserError(f"no Ray cluster answers at {address!r}; start one with `ray start --head`") from error
