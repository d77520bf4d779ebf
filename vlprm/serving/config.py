"""Where a model runs: in this process, or on servers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from vlprm.errors import UserError

_URL = re.compile(r"https?://[^@?#\s]+")


_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


@dataclass(frozen=True)
class ServerConfig:
    """Servers (such as vLLM) of one model, with OpenAI's chat protocol and continuation of an assistant's turn.

    Args:
        base_urls: their addresses, such as http://localhost:8000/v1; requests take turns. Empty: no server.
        model: name under which they serve the model.
        concurrency: maximum number of open requests, over all servers.
        timeout: seconds that one attempt of a request may take.
        retries: further attempts after a failed request, with a growing pause between them.
        patience: seconds that all servers may be away or busy before the run stops.
        api_key_env: name of the environment variable that holds the API key, if the servers require one.
    """

    base_urls: tuple[str, ...] = ()
    model: str = ""
    concurrency: PositiveInt = 64
    timeout: PositiveFloat = 600.0
    retries: NonNegativeInt = 4
    patience: PositiveFloat = 900.0
    api_key_env: str | None = None

    def __post_init__(self) -> None:
        """UserError for invalid fields. A config is written into run folders, so no field may hold a key, and no
        message shows one."""
        if bool(self.base_urls) != bool(self.model):
            raise UserError("server.base_urls and server.model go together; give both, or neither for no server")
        if not all(_URL.fullmatch(url) for url in self.base_urls):
            raise UserError(
                "server.base_urls takes addresses such as http://localhost:8000/v1, without user, key or query;"
                " put a key into the variable that server.api_key_env names"
            )
        if self.api_key_env is not None and not _VARIABLE.fullmatch(self.api_key_env):
            raise UserError("server.api_key_env takes the name of an environment variable such as VLPRM_KEY, not a key")


@dataclass(frozen=True)
class ModelConfig:
    """A model, and where it runs. In flags and recipes, a plain text stands for its checkpoint.

    Args:
        checkpoint: its folder, builtin/policy or builtin/backbone.
        server: where it is served, in place of this process; `checkpoint` is the folder that is served.
        device: auto (the GPU where there is one), cpu, cuda, or cuda:1 and so on; config.yaml keeps what auto was.
        dtype: float32, or bfloat16 for half the memory.
    """

    PLAIN: ClassVar[str] = "checkpoint"  # what a plain text stands for, see vlprm/runs/flags.py

    checkpoint: str
    server: ServerConfig = ServerConfig()
    device: str = "auto"
    dtype: str = "float32"

    @property
    def is_served(self) -> bool:
        return bool(self.server.base_urls)
