"""Trains several configs, one after another, in processes of this machine's CPU, by an accelerate config for GPUs:

    accelerate launch --config_file configs/accelerate/fsdp2.yaml --num_processes 2 --mixed_precision no \
        -m tests.sharded CONFIG …

A config beside which there is a file with the ending `.stop` is left, as by a kill, after the step that the file says.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import DistributedType

from train import prm
from train.reward.progress import Progress
from vlprm.runs.config import parse

made = PartialState.__init__


def called_gpus(self: PartialState, *args: Any, **kwargs: Any) -> None:
    """accelerate shards nothing in processes that it calls MULTI_CPU, and would train by DDP without a word."""
    made(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


class Stopped(Exception):
    """The end of a run in mid-training."""


class Stopping(Progress):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        stop = Path(args.output_dir).with_suffix(".stop")
        if stop.exists() and state.global_step == int(stop.read_text()):
            raise Stopped


def train(config: str) -> None:
    try:
        prm.main(parse(prm.PrmConfig, ["--config", config]))
    except Stopped:
        PartialState().wait_for_everyone()


if __name__ == "__main__":
    os.environ["ACCELERATE_USE_CPU"] = "true"  # the launcher says false
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        PartialState.__init__ = called_gpus
    prm.Progress = Stopping
    for path in sys.argv[1:]:
        train(path)
