"""Progress of a training run: log lines with loss, steps per second and time left; `metrics.jsonl`; resuming."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainerCallback

from vlprm.errors import UserError
from vlprm.runs.folder import write_atomically

log = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
TRACKERS = {"wandb": ("wandb",), "trackio": ("trackio",), "tensorboard": ("tensorboard", "tensorboardX")}


def refuse_data_parallel() -> None:
    """UserError if one process sees several GPUs: the Trainer would use DataParallel, which cannot split a batch."""
    if torch.cuda.device_count() > 1 and "LOCAL_RANK" not in os.environ:
        raise UserError(
            f"{torch.cuda.device_count()} GPUs are visible to one process; start it with accelerate launch, or set"
            " CUDA_VISIBLE_DEVICES=0"
        )


def refuse_missing_tracker(report_to: str) -> None:
    """UserError if the tracker that receives metrics is not installed."""
    packages = TRACKERS.get(report_to, ())
    if packages and not any(map(find_spec, packages)):
        needed = packages[0]
        raise UserError(f"report_to: {needed} needs the package {needed}; pip install it, or leave out report_to")


def refuse_frozen_adapters(lora_rank: int, freeze: Collection[str]) -> None:
    """UserError if adapters of a rank above 0 would sit on text layers that are frozen."""
    if lora_rank and "text" in freeze:
        raise UserError(
            "lora_rank trains adapters on the text layers, but freeze lists text; take text out of freeze, or set"
            " lora_rank: 0"
        )


def last_whole_checkpoint(folder: Path) -> str | None:
    """Path of the newest complete checkpoint to resume from; None if there is none. The main process removes incomplete
    checkpoints while the others wait."""
    process = PartialState()
    checkpoints = {path: _is_whole(path) for path in folder.glob("checkpoint-*")}
    whole = [path for path, is_whole in checkpoints.items() if is_whole]
    if process.is_main_process:
        for path in checkpoints.keys() - whole:
            shutil.rmtree(path)
    process.wait_for_everyone()
    newest = max(whole, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)
    return None if newest is None else str(newest)


def _is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end. The Trainer writes its state file last, and a kill may cut it."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return True


class Progress(TrainerCallback):  # type: ignore[misc]
    """Logs each of the Trainer's log events and appends it to `metrics.jsonl` in the output folder. Its first line has
    the `known` values as step 0.

    A resumed run repeats the steps after its checkpoint, so their earlier lines are removed.
    """

    def __init__(self, total_steps: int, known: Mapping[str, int] | None = None) -> None:
        self.total_steps, self.known = total_steps, known
        self.started, self.first_step = 0.0, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock, and remove lines of steps that will be repeated."""
        self.started, self.first_step = time.time(), state.global_step
        path = Path(args.output_dir) / METRICS_FILE
        if state.is_world_process_zero:
            logged = _lines_until(path, state.global_step) if path.exists() else []
            lines = [*([json.dumps({"step": 0, **self.known})] if self.known else []), *logged]
            write_atomically(path, "".join(f"{line}\n" for line in lines))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Write a log event to the log and to `metrics.jsonl`."""
        if not state.is_world_process_zero:
            return
        step = state.global_step
        rate = (step - self.first_step) / max(time.time() - self.started, 1e-9)
        left = (self.total_steps - step) / rate if rate else float("nan")
        shown = " ".join(f"{name} {value:.4g}" for name, value in (logs or {}).items() if isinstance(value, float))
        log.info("step %d/%d  %.2f steps/s  %.0f s left  %s", step, self.total_steps, rate, left, shown)
        with (Path(args.output_dir) / METRICS_FILE).open("a") as file:
            file.write(json.dumps({"step": step, **(logs or {})}) + "\n")


def _lines_until(path: Path, step: int) -> list[str]:
    """The lines of steps 1 to `step`, without the Trainer's summary, which every run writes again. A line without a
    newline was cut short by a kill and is dropped."""
    lines = path.read_text().split("\n")[:-1]
    logged = [(line, json.loads(line)) for line in lines]
    return [line for line, logs in logged if 0 < logs["step"] <= step and "train_runtime" not in logs]
