"""Search on a Ray cluster: actors that each hold an engine take units of problems; this process writes the records.

A worker that dies is started again, and its unit with it. The code and the policy's folder have to be where they are
here on every node (a shared file system, or an installed package).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from data_synth.drive import Work, search_one
from data_synth.runner import in_window
from data_synth.source import Source
from data_synth.store import Outcome
from vlprm.engines.choose import open_engine

ROOT = Path(__file__).parent.parent


class Worker:
    """An actor: its state is its engine, opened with the first unit. `config` is a TreesConfig."""

    def __init__(self, config: Any, open_source: Callable[[Any], Source]) -> None:
        self.config = config
        self.source = open_source(config)
        self.engine: Any = None
        self.open = AsyncExitStack()  # kept: an engine whose context is collected is closed
        self.opening = asyncio.Lock()

    async def search(self, unit: Sequence[str]) -> list[Outcome]:
        config = self.config
        async with self.opening:
            if self.engine is None:
                opened = open_engine(config.policy, config.device, config.dtype, config.server)
                self.engine = await self.open.enter_async_context(opened)
        asked = (search_one(i, self.source, self.engine, config.search, config.seed) for i in unit)
        return list(await asyncio.gather(*asked))


async def on_ray(work: Work, config: Any, open_source: Callable[[Any], Source]) -> None:
    """Work the units off on `config.workers` actors of the cluster at `config.ray`. ValueError where Ray is not
    installed or no cluster answers."""
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ValueError("a Ray cluster needs the package ray; pip install 'vlprm[ray]'") from error
    _connect(ray, config.ray)
    # In a worker's process two units at a time would share batches, and the trees depend on which came first.
    at_once = 2 if config.server.base_urls else 1
    actor = ray.remote(num_cpus=1, num_gpus=int(config.device.startswith("cuda")), max_restarts=-1, max_task_retries=-1,
                       max_concurrency=at_once)(Worker)  # fmt: skip
    workers = [actor.remote(config, open_source) for _ in range(config.workers)]
    free = workers * at_once

    async def search(unit: Sequence[str]) -> list[Outcome]:
        worker = free.pop()
        try:
            return list(await worker.search.remote(unit))
        finally:
            free.append(worker)

    todo = ([i for i in unit if i not in work.records.keys] for unit in work.units)
    try:
        async for outcomes in in_window(filter(None, todo), search, len(free), work.stopping):
            work.write(outcomes)
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host:  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address, runtime_env={"env_vars": {"PYTHONPATH": path}}, log_to_driver=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"no Ray cluster answers at {address!r}; start one with `ray start --head`") from error
