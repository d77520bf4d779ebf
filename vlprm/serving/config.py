"""Where servers are, and how they are called."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

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
