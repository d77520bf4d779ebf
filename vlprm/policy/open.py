"""The engine that a config asks for: the policy in this process, or a server that serves it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from vlprm.policy import Policy
from vlprm.serving.config import ServerConfig


@asynccontextmanager
async def open_policy(policy: str, device: str, dtype: str, server: ServerConfig) -> AsyncIterator[Policy]:
    """An engine for the policy's checkpoint folder, for one event loop. With servers, the weights are the server's and
    the folder gives processor and profile; ValueError where a server does not answer as it has to."""
    # A judge that is served, or that is no model, needs no torch in its process; so it is imported here.
    from vlprm.model.loading import checkpoint_folder, load_inputs, load_policy, placement
    from vlprm.policy.local import LocalPolicy

    if not server.base_urls:
        yield LocalPolicy(load_policy(policy, *placement(device, dtype)))
        return
    async with checked(require_server_package().ServedPolicy(load_inputs(checkpoint_folder(policy)), server)) as engine:
        yield engine


@asynccontextmanager
async def open_chat(server: ServerConfig) -> AsyncIterator[Policy]:
    """An engine that answers questions, for one event loop: any chat model of those servers. ValueError where one does
    not answer."""
    async with checked(require_server_package().ChatModel(server)) as engine:
        yield engine


@asynccontextmanager
async def checked(engine: Any) -> AsyncIterator[Any]:
    try:
        await engine.check()
        yield engine
    finally:
        await engine.close()


def require_server_package() -> Any:
    try:
        from vlprm.policy import served as server
    except ModuleNotFoundError as error:
        raise ValueError(f"a server needs the package {error.name}; pip install 'vlprm[server]'") from error
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it has a line for every request
    return server
