"""Two processes of this machine's CPU (gloo) that train as `accelerate launch` has GPUs train."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from accelerate import PartialState
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from train import prm
from train.loop.progress import Progress
from vlprm.runs.config import parse

CONFIGS = Path(__file__).parents[2] / "configs/accelerate"
made = PartialState.__init__


def variables(kind: str, precision: str = "no") -> dict[str, str]:
    """What the launcher sets for each process by `configs/accelerate/KIND.yaml`, by default in float32."""
    flags = ["--config_file", str(CONFIGS / f"{kind}.yaml"), "--num_processes", "2", "--mixed_precision", precision]
    args, defaults, _ = _validate_launch_command(launch_command_parser().parse_args([*flags, "-m", "train.prm"]))
    args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    set_by = prepare_deepspeed_cmd_env(args)[1] if args.use_deepspeed else prepare_multi_gpu_env(args)
    return {name: value for name, value in set_by.items() if os.environ.get(name) != value}


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread, as each of two processes does: sums depend on the number of threads. Later tests get
    theirs back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def called_gpus(self: PartialState, *args: Any, **kwargs: Any) -> None:
    """accelerate shards nothing in processes that it calls MULTI_CPU, and would train by DDP without a word."""
    made(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU and os.environ.get("ACCELERATE_USE_FSDP") == "true":
        self.distributed_type = DistributedType.MULTI_GPU


def in_two(work: Callable[..., None], *given: Any, environment: dict[str, str] | None = None) -> None:
    """Call `work(process, *given)` in two processes, which accelerate knows of. DeepSpeed is set up only for processes
    that start with its variables in their `environment`."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    mp.spawn(_one_of_two, (port, environment or {}, work, given), nprocs=2)


def _one_of_two(
    rank: int, port: int, environment: dict[str, str], work: Callable[..., None], given: tuple[Any, ...]
) -> None:
    world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in world.items()} | environment
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    if environment.get("ACCELERATE_USE_DEEPSPEED") == "true":  # which accelerate has for GPUs alone
        PartialState._prepare_backend = lambda *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)  # type: ignore[method-assign]
        PartialState.set_device = lambda self: setattr(self, "device", torch.device("cpu"))  # type: ignore[method-assign]
        process = PartialState()
    else:
        os.environ["ACCELERATE_USE_CPU"] = "true"
        PartialState.__init__ = called_gpus  # type: ignore[method-assign]
        process = PartialState(cpu=True)
    work(process, *given)
    process.wait_for_everyone()
    process.destroy_process_group()


class Stopped(Exception):
    """The end of a run in mid-training."""


class Stopping(Progress):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        stop = Path(args.output_dir).with_suffix(".stop")
        if stop.exists() and state.global_step == int(stop.read_text()):
            raise Stopped


def train_all(process: PartialState, jobs: Sequence[tuple[dict[str, str], Path]]) -> None:
    """Train configs one after another, each with its environment. One beside which there is a file with the ending
    `.stop` is left, as by a kill, after the step that the file says."""
    prm.Progress = Stopping  # type: ignore[misc]
    for environment, config in jobs:
        os.environ.pop("ACCELERATE_USE_FSDP", None)
        os.environ.update(environment)
        try:
            prm.main(parse(prm.PrmConfig, ["--config", str(config)]))
        except Stopped:
            process.wait_for_everyone()
