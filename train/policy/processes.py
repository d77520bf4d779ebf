"""Several processes that improve one policy: each has the whole model, and a share of a round's problems.

All processes have the same weights. What they exchange are Python objects (rollouts, sums) and, before each optimizer
step, gradients. A single process exchanges nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from train.policy.grpo_config import GrpoConfig
from vlprm.errors import UserError
from vlprm.serving.config import ModelConfig

T = TypeVar("T")
SHARDING = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}  # what the launcher sets


def refuse_shards() -> None:
    """UserError if the launcher would shard the policy: each process samples from its own copy."""
    for variable, name in SHARDING.items():
        if os.environ.get(variable) == "true":
            raise UserError(
                f"train.grpo keeps the whole policy in each process and does not shard it with {name}; launch it with"
                " configs/accelerate/multi_gpu.yaml"
            )


def is_main() -> bool:
    """Whether this process writes the run folder."""
    return bool(PartialState().is_main_process)


def wait() -> None:
    """Wait until all processes are here."""
    PartialState().wait_for_everyone()


def on_own_device(model: ModelConfig) -> ModelConfig:
    """The model on the GPU of this process, if it runs on GPUs and there are several processes."""
    process = PartialState()
    if process.num_processes == 1 or model.device != "cuda":
        return model
    return replace(model, device=f"cuda:{process.local_process_index}")


def with_own_devices(config: GrpoConfig) -> GrpoConfig:
    """The config with the models on this process's GPU."""
    return config.with_models(on_own_device)


def share(items: Sequence[T]) -> Sequence[T]:
    """The items of this process."""
    process = PartialState()
    return items[process.process_index :: process.num_processes]


def of_all(own: Sequence[T]) -> list[T]:
    """The items of all processes, in the order in which `share` dealt them; each gives as many as it was dealt."""
    shares: list[Sequence[T]] = gather_object([own])
    n = len(shares)
    return [shares[k % n][k // n] for k in range(sum(map(len, shares)))]


def everything(own: Sequence[T]) -> list[T]:
    """The items of all processes, those of the first process first."""
    return [item for of_process in gather_object([own]) for item in of_process]


def from_main(make: Callable[[], T]) -> T:
    """What the main process makes; the others wait for it."""
    found = [make() if is_main() else None]
    broadcast_object_list(found)
    return found[0]  # type: ignore[return-value]


def summed(own: Mapping[str, float]) -> Counter[str]:
    """The sums over all processes, by name."""
    sums: Counter[str] = Counter()
    for one in gather_object([dict(own)]):
        sums.update(one)
    return sums


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Add up the gradients of all processes; each of them has the sum afterwards."""
    if PartialState().num_processes == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:  # no row of this process uses it
            parameter.grad = torch.zeros_like(parameter)
        torch.distributed.all_reduce(parameter.grad)
