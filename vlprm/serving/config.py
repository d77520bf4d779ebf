"""Where a model runs: in this process, or on servers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from vlprm.errors import UserError

_URL = re.compile(r"https?://[^@?#\s]+")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


@dataclass(frozen=True)
class ServerConfig:
    """Servers of one model, such as vLLM: OpenAI's chat protocol, with continuation of an assistant turn.

    Args:
        base_urls: server addresses, such as http://localhost:8000/v1; all requests about a problem go to one of them,
            if it is not overloaded. Empty for no server.
        model: name under which the servers serve the model.
        concurrency: maximum number of open requests at each server; fewer after it was busy or timed out.
        timeout: timeout of one attempt of a request, in seconds.
        retries: maximum number of further attempts after a failed request, with growing pauses.
        patience: seconds that all servers may be unavailable or busy before the run stops.
        gpus: GPUs of each server, by which `cost.json` multiplies the seconds of a stage.
        api_key_env: name of the environment variable that holds the API key, if the servers require one.
    """

    base_urls: tuple[str, ...] = ()
    model: str = ""
    concurrency: PositiveInt = 128
    timeout: PositiveFloat = 600.0
    retries: NonNegativeInt = 4
    patience: PositiveFloat = 900.0
    gpus: PositiveInt = 1
    api_key_env: str | None = None

    def __post_init__(self) -> None:
        """UserError for invalid fields. Run folders store the config, so no field and no message may contain a key."""
        if bool(self.base_urls) != bool(self.model):
            raise UserError("server.base_urls and server.model go together; give both, or neither for no server")
        if not all(_URL.fullmatch(url) for url in self.base_urls):
            raise UserError(
                "server.base_urls takes addresses such as http://localhost:8000/v1, without user, key or query;"
                " put the key into the variable that server.api_key_env names"
            )
        if self.api_key_env is not None and not _VARIABLE.fullmatch(self.api_key_env):
            raise UserError("server.api_key_env takes the name of an environment variable such as VLPRM_KEY, not a key")


@dataclass(frozen=True)
class ModelConfig:
    """A model and where it runs. In flags and recipes, a plain text is its checkpoint.

    Args:
        checkpoint: checkpoint folder, or builtin/policy or builtin/backbone; a published reward model is named
            PROTOCOL@FOLDER, such as qwen_vl_prm@runs/Qwen-VL-PRM-7B.
        server: servers that run the model instead of this process; they must serve the folder `checkpoint`.
        device: auto (a GPU if available), cpu, cuda, cuda:1 and so on; config.yaml records what auto chose. On a Ray
            cluster it is a device of the worker, which gets one GPU for auto if the cluster has any.
        dtype: auto (bfloat16 on a GPU, else float32), float32 or bfloat16; config.yaml records what auto chose.
    """

    PLAIN: ClassVar[str] = "checkpoint"  # the field that a plain text sets, see vlprm/runs/flags.py

    checkpoint: str
    server: ServerConfig = ServerConfig()
    device: str = "auto"
    dtype: str = "auto"

    @property
    def is_served(self) -> bool:
        """Whether servers run the model."""
        return bool(self.server.base_urls)


def device_count(model: ModelConfig, workers: int = 1) -> int:
    """The devices that run a model: the GPUs of its servers, or one in each process that has it."""
    return len(model.server.base_urls) * model.server.gpus if model.is_served else workers


def devices_of(models: Iterable[ModelConfig]) -> tuple[str, ...]:
    """The distinct devices of the models that run in this process."""
    return tuple(dict.fromkeys(model.device for model in models if not model.is_served))
