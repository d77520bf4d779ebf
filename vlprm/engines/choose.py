"""The engine that a config asks for: the policy in this process, or a server that serves it."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from vlprm.engines import Engine

if TYPE_CHECKING:
    from vlprm.served_scores import ServedScores

_URL = re.compile(r"https?://[^@?#\s]+")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


@dataclass(frozen=True)
class ServerConfig:
    """Servers of one policy that speak OpenAI's chat protocol and continue an assistant's turn, such as vLLM.

    Args:
        base_urls: where they are, such as http://localhost:8000/v1; requests take turns. None: no server.
        model: the name that they serve the policy under.
        concurrency: most requests that are open at once, over all servers.
        timeout: seconds that one try of a request may take.
        retries: further tries of a request that failed, with a growing pause between them.
        patience: seconds that the servers may all be away before the run stops.
        api_key_env: name of the environment variable that holds the key, where the servers want one.
    """

    base_urls: tuple[str, ...] = ()
    model: str = ""
    concurrency: PositiveInt = 64
    timeout: PositiveFloat = 600.0
    retries: NonNegativeInt = 4
    patience: PositiveFloat = 900.0
    api_key_env: str | None = None

    def __post_init__(self) -> None:
        """A config is written into run folders: no field may hold a key, and no message shows one."""
        if bool(self.base_urls) != bool(self.model):
            raise ValueError("server.base_urls and server.model go together; give both, or neither for no server")
        if not all(_URL.fullmatch(url) for url in self.base_urls):
            raise ValueError(
                "server.base_urls takes addresses such as http://localhost:8000/v1, without user, key or query;"
                " put a key into the variable that server.api_key_env names"
            )
        if self.api_key_env is not None and not _VARIABLE.fullmatch(self.api_key_env):
            raise ValueError(
                "server.api_key_env takes the name of an environment variable such as VLPRM_KEY, not a key"
            )


@asynccontextmanager
async def open_engine(policy: str, device: str, dtype: str, server: ServerConfig) -> AsyncIterator[Engine]:
    """An engine for the policy's checkpoint folder, for one event loop. With servers, the weights are the server's and
    the folder gives processor and profile; ValueError where a server does not answer as it has to."""
    # A judge that is served, or that is no model, needs no torch in its process; so it is imported here.
    from vlprm.backbones import checkpoint_folder, load_inputs, load_policy, placement
    from vlprm.engines.local import LocalEngine

    if not server.base_urls:
        yield LocalEngine(load_policy(policy, *placement(device, dtype)))
        return
    async with _checked(_server_module().ServerEngine(load_inputs(checkpoint_folder(policy)), server)) as engine:
        yield engine


@asynccontextmanager
async def open_chat(server: ServerConfig) -> AsyncIterator[Engine]:
    """An engine that answers questions, for one event loop: any chat model of those servers. ValueError where one does
    not answer."""
    async with _checked(_server_module().ChatEngine(server)) as engine:
        yield engine


@asynccontextmanager
async def open_scores(reward_model: str | Path, server: ServerConfig) -> AsyncIterator[ServedScores]:
    """The scores of a reward model that servers serve from its folder, for one event loop. ValueError where the head
    cannot be served, or where a server does not answer as it has to."""
    if not server.base_urls:
        raise ValueError("scores of a server need server.base_urls and server.model; give both")
    _server_module()
    from vlprm.served_scores import ServedScores

    async with _checked(ServedScores(reward_model, server)) as scores:
        yield scores


@asynccontextmanager
async def _checked(engine: Any) -> AsyncIterator[Any]:
    try:
        await engine.check()
        yield engine
    finally:
        await engine.close()


def _server_module() -> Any:
    try:
        from vlprm.engines import server
    except ModuleNotFoundError as error:
        raise ValueError(f"a server needs the package {error.name}; pip install 'vlprm[server]'") from error
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it has a line for every request
    return server
