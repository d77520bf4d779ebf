"""Open the policy that a config asks for: in this process, or on a server."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlprm.errors import UserError
from vlprm.policy import Policy
from vlprm.serving.config import ModelConfig, ServerConfig


@asynccontextmanager
async def open_policy(model: ModelConfig) -> AsyncIterator[Policy]:
    """Open a policy, for one event loop. With servers, the server has the weights and the checkpoint folder gives the
    processor and the config. UserError if a server does not answer as it must."""
    # Imported here, because a served or scripted judge needs no torch in its process.
    from vlprm.model.loading import checkpoint_folder, load_inputs, load_policy, placement, refuse_step_head
    from vlprm.policy.local import LocalPolicy

    if not model.is_served:
        yield LocalPolicy(load_policy(model.checkpoint, *placement(model.device, model.dtype)))
        return
    folder = checkpoint_folder(model.checkpoint, weights=False)
    refuse_step_head(folder)
    inputs = load_inputs(folder)
    async with checked(require_server_package().ServedPolicy(inputs, model.server)) as engine:
        yield engine


def placed(model: ModelConfig, ray: str = "") -> ModelConfig:
    """The same model with the device and dtype that `auto` is on this machine. On a Ray cluster each worker resolves
    its own device, which this machine need not have. UserError for a device that the machine lacks, or an unknown
    dtype."""
    from vlprm.model.loading import placement

    if model.is_served:
        return model
    device, dtype = placement("cpu" if ray else model.device, model.dtype)
    return model if ray else replace(model, device=device, dtype=str(dtype).removeprefix("torch."))


def folders_of(models: Iterable[ModelConfig]) -> tuple[list[Path], list[Path]]:
    """The checkpoint folders of the models that run in this process, and those of served models, without weights."""
    from vlprm.model.loading import checkpoint_folder

    folders = [(model.is_served, checkpoint_folder(model.checkpoint, weights=not model.is_served)) for model in models]
    own, served = ([path for is_served, path in folders if is_served is wanted] for wanted in (False, True))
    return own, served


@asynccontextmanager
async def open_chat(server: ServerConfig) -> AsyncIterator[Policy]:
    """Open a policy that answers questions with any served chat model, for one event loop. UserError if a server does
    not answer."""
    async with checked(require_server_package().ChatModel(server)) as engine:
        yield engine


@asynccontextmanager
async def open_judge(model: ModelConfig) -> AsyncIterator[Policy]:
    """Open any chat model as a judge. In this process, it reads no request for tagged steps after the question of the
    judge."""
    if model.is_served:
        async with open_chat(model.server) as engine:
            yield engine
        return
    from vlprm.model.loading import load_policy, placement
    from vlprm.policy.local import LocalPolicy

    yield LocalPolicy(load_policy(model.checkpoint, *placement(model.device, model.dtype), plain=True))


@asynccontextmanager
async def checked(engine: Any) -> AsyncIterator[Any]:
    """Check the servers of `engine`, yield it, and close its connections at the end."""
    try:
        await engine.check()
        yield engine
    finally:
        await engine.close()


def require_server_package() -> Any:
    """Import `vlprm.policy.served`. UserError if the extra `server` is not installed."""
    try:
        from vlprm.policy import served as server
    except ModuleNotFoundError as error:
        raise UserError(f"using a server requires the package {error.name}; pip install 'vlprm[server]'") from error
    for name in ("httpx2", "openai"):  # they log every request and every retry
        logging.getLogger(name).setLevel(logging.WARNING)
    return server
