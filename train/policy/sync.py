"""Give servers the weights that were learnt, through vLLM's own interface, and check that they sample with them.

The policy's folder is written to a path that all servers can read. Each server finishes its open requests, loads the
weights in place, forgets the prefixes that it computed with the old ones, takes the version's name, and goes on. The
servers must be started with VLLM_SERVER_DEV_MODE=1, which opens these endpoints; keep them on a private network.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
from openai import AsyncOpenAI

from vlprm.errors import UserError
from vlprm.policy import all_answers
from vlprm.serving.client import Servers
from vlprm.serving.config import ServerConfig

START = "start it as configs/policy/served.yaml shows"


class WeightSync:
    """The servers of a policy. Create and `close` it in the same event loop."""

    def __init__(self, config: ServerConfig) -> None:
        self.clients = [server.client for server in Servers(config).each]

    async def close(self) -> None:
        """Close all connections."""
        for client in self.clients:
            await client.close()

    async def send(self, folder: Path, version: str) -> None:
        """Let every server load a checkpoint folder as this version. UserError if one does not."""
        await all_answers(_load(client, folder.resolve(), version) for client in self.clients)

    async def check(self, version: str) -> None:
        """UserError if a server samples with other weights than this version."""
        await all_answers(_check(client, version) for client in self.clients)


async def _load(client: AsyncOpenAI, folder: Path, version: str) -> None:
    await _call(client, "pause?mode=wait", {})
    try:
        loaded = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        await _call(client, "collective_rpc", loaded)
        await _call(client, "reset_prefix_cache", {})
        await _call(client, "update_weight_version", {"new_version": version})
    finally:
        await _call(client, "resume", {})
    await _check(client, version)


async def _check(client: AsyncOpenAI, version: str) -> None:
    found = (await _call(client, "weight_info")).get("weight_version")
    if found != version:
        raise UserError(
            f"the server {client.base_url} samples with the weights {found!r}, not {version!r}; restart it, then run"
            " the same command again to continue"
        )


async def _call(client: AsyncOpenAI, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The JSON answer to a POST, or to a GET without a body. vLLM serves these next to /v1, not below it."""
    address = f"{str(client.base_url).removesuffix('/').removesuffix('/v1')}/{path}"
    try:
        if body is None:
            text = await client.get(address, cast_to=str)
        else:
            text = await client.post(address, body=body, cast_to=str)
    except openai.APIError as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"the server {client.base_url} does not take new weights ({path}: {said}); {START}") from error
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {}
