"""Train a policy on planned batches of packed rows, and save it: what sft and dpo share."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from accelerate import PartialState
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PrinterCallback

from train.loop.batches import model_inputs, plan_epoch
from train.loop.progress import (
    Progress,
    last_whole_checkpoint,
    refuse_data_parallel,
    refuse_frozen_adapters,
    refuse_missing_tracker,
)
from train.loop.trainer import BatchTrainer, training_arguments
from train.policy.batches import NOT_INPUTS
from train.policy.config import DpoConfig, SftConfig
from train.policy.model import load_packed_policy
from vlprm.model.checkpoint_config import CHECKPOINT_FILE
from vlprm.model.loading import Checkpoint, checkpoint_folder, freeze
from vlprm.model.lora import add_adapters, with_adapters
from vlprm.runs.config import dump
from vlprm.runs.folder import fingerprint, open_run, timed

log = logging.getLogger(__name__)

T = TypeVar("T")
Batch = dict[str, Any]
# (log-probabilities of the chosen tokens, batch, the global batch's totals) -> the loss and sums of measures
TokenLoss = Callable[[Tensor, Batch, Tensor], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class Task(Generic[T]):
    """What a policy learns: examples with their tokens, how several become a batch, and the loss. `left_out`: numbers
    of what is not trained on, by cause."""

    examples: Sequence[T]
    sizes: Sequence[int]
    batch: Callable[[Sequence[T]], Batch]
    loss: TokenLoss
    left_out: Mapping[str, int]


def train_policy(
    config: SftConfig | DpoConfig, command: str, sources: Sequence[Path], prepare: Callable[[Checkpoint], Task[Any]]
) -> None:
    """Open the run folder, train on the task that `prepare` makes for the policy, and save. A killed run resumes from
    its last checkpoint."""
    refuse_data_parallel()
    refuse_missing_tracker(config.report_to)
    refuse_frozen_adapters(config.lora_rank, config.freeze)
    with PartialState().main_process_first():
        open_run(config.run, dump(config), config.seed, [*sources, checkpoint_folder(config.policy)])
    if (config.run / CHECKPOINT_FILE).exists():
        log.info("%s is already trained", config.run)
        return
    with timed(config.run, "train") if PartialState().is_main_process else nullcontext():
        checkpoint = load_packed_policy(config.policy)
        trainer = make_trainer(config, checkpoint, prepare(checkpoint))
        trainer.train(resume_from_checkpoint=last_whole_checkpoint(config.run))
        save(config, command, sources, checkpoint, trainer)


class PlannedBatches(Dataset[Batch], Generic[T]):
    """Planned batches, made on demand. An item is a whole batch, because batches are sized by tokens, not by rows."""

    def __init__(self, batches: Sequence[Sequence[T]], make: Callable[[Sequence[T]], Batch]) -> None:
        self.batches, self.make = batches, make

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        return self.make(self.batches[index])


class TokenTrainer(BatchTrainer):
    """Trainer with a loss on the log-probabilities of chosen tokens. Its log lines have the mean of each measure."""

    def __init__(self, loss: TokenLoss, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.token_loss = loss
        self.sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.args.device))

    def batch_loss(self, model: Any, batch: Batch, totals: Tensor) -> tuple[Tensor, Any]:
        """See `train.policy.losses`."""
        output = model(**model_inputs(batch, NOT_INPUTS))
        loss, measures = self.token_loss(output.log_p, batch, totals)
        for name, value in measures.items():
            self.sums[name] += value
        return loss, {}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of the measures since the last line."""
        if self.sums and "loss" in logs:
            sums = {name: self.accelerator.reduce(value, "sum").item() for name, value in self.sums.items()}
            pairs = max(1.0, sums.pop("pairs"))
            logs = {**logs, **{name: value / pairs for name, value in sums.items()}}
            self.sums.clear()
        super().log(logs, start_time)


def make_trainer(config: SftConfig | DpoConfig, checkpoint: Checkpoint, task: Task[Any]) -> TokenTrainer:
    """The Trainer of a task, with the policy's untrained parts frozen, or with adapters."""
    per_step = config.accumulate * PartialState().num_processes
    everything, width = [range(len(task.examples))], checkpoint.inputs.width
    seeds = range(config.seed, config.seed + config.epochs)
    plans = (plan_epoch(task.sizes, config.batch_tokens, seed, everything, per_step, width) for seed in seeds)
    batches = [[task.examples[i] for i in batch] for plan in plans for batch in plan]
    steps = len(batches) // per_step
    log.info("%d rows of %d tokens, %d optimizer steps", len(task.examples), sum(task.sizes), steps)
    trainer = TokenTrainer(
        loss=task.loss,
        parameters=lambda model: [
            {
                "params": [p for p in model.parameters() if p.requires_grad],
                "lr": config.learning_rate,
                "weight_decay": 0.0,
            }
        ],
        model=_trainable(config, checkpoint),
        args=training_arguments(config, steps),
        train_dataset=PlannedBatches(batches, task.batch),
        data_collator=lambda items: items[0],
        callbacks=[Progress(steps, task.left_out)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _trainable(config: SftConfig | DpoConfig, checkpoint: Checkpoint) -> Any:
    if config.lora_rank:
        return add_adapters(checkpoint.model, config.lora_rank, config.policy, config.seed)
    freeze(checkpoint.model, checkpoint.inputs.family, config.freeze)
    return checkpoint.model


def save(
    config: SftConfig | DpoConfig, command: str, sources: Sequence[Path], checkpoint: Checkpoint, trainer: TokenTrainer
) -> None:
    """Save a transformers folder with `vlprm.json`, which is written last; adapters are merged into the policy."""
    adapters = config.run / "adapters"
    # On all processes, as each may hold a shard of the weights.
    trainer.save_model(str(adapters if config.lora_rank else config.run))
    if not PartialState().is_main_process:
        return
    if config.lora_rank:
        with_adapters(load_packed_policy(config.policy).model, adapters).save_pretrained(config.run)
    provenance = {
        "command": f"python -m {command} --config {config.run.name}/config.yaml",
        "policy": config.policy,
        "seed": config.seed,
        "data_hash": hashlib.sha256("".join(map(fingerprint, sources)).encode()).hexdigest()[:16],
        "optimizer_steps": trainer.state.global_step,
    }
    checkpoint.inputs.processor.save_pretrained(config.run)
    replace(checkpoint.config, provenance=provenance).save(config.run)
    log.info("wrote %s", config.run)
