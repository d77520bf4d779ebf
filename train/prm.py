"""Step labels -> a step-reward model.

    python -m train.prm --config configs/demo/prm.yaml

Killed, it goes on from its last checkpoint, and ends with the weights of an undisturbed run.
"""

from __future__ import annotations

import hashlib
import logging
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jsonargparse.typing import ClosedUnitInterval, PositiveFloat, PositiveInt
from torch.utils.data import Dataset
from transformers import EvalPrediction, PrinterCallback, Trainer, TrainingArguments

from train.data import LabelledRow, batch_rows, in_length_batches, labelled_row, load_paths, step_loss
from train.progress import Progress, last_whole_checkpoint, refuse_several_gpus
from vlprm.backbones import Checkpoint, checkpoint_folder
from vlprm.config import dump, run
from vlprm.dataset import LabelledPath
from vlprm.inputs import IGNORE, InputBuilder
from vlprm.metrics import auroc
from vlprm.profile import FILE_NAME, Profile
from vlprm.records import open_run, timed
from vlprm.reward_model import CORRECT, load_reward_model, save_reward_model
from vlprm.schema import Aggregation

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrmConfig:
    """Train a step-reward model.

    Args:
        dataset: parquet file of data_synth.label.
        run: checkpoint folder to write.
        backbone: checkpoint folder of the backbone, or builtin/backbone.
        freeze: what stays as it is: nothing, the vision tower, or the backbone, which is all but the head.
        epochs: passes over the labelled solutions.
        batch_size: solutions of a device's step.
        accumulate: device steps of an optimizer step.
        surprise: let the head read how unlikely a step was to the backbone, beside the state at its end.
        learning_rate: peak of a warm-up and linear decay.
        head_learning_rate: the same for the head, which starts from nothing.
        max_paths_per_tree: solutions taken of one problem.
        held_out: share of the problems kept for the metrics shown while training.
        checkpoint_every: optimizer steps between checkpoints to resume from.
        aggregation: the rule that turns step rewards into a solution's, fixed before any result is seen.
        seed: decides the held-out problems and the order of the rows.
    """

    dataset: Path
    run: Path
    backbone: str = "builtin/backbone"
    freeze: Literal["nothing", "vision", "backbone"] = "vision"
    epochs: PositiveInt = 1
    batch_size: PositiveInt = 32
    accumulate: PositiveInt = 1
    surprise: bool = False
    learning_rate: PositiveFloat = 3e-4
    head_learning_rate: PositiveFloat = 3e-3
    max_paths_per_tree: PositiveInt = 8
    held_out: ClosedUnitInterval = 0.05
    checkpoint_every: PositiveInt = 50
    aggregation: Aggregation = "min"
    seed: int = 0


def main(config: PrmConfig) -> None:
    refuse_several_gpus()
    open_run(config.run, dump(config), config.seed, [config.dataset, checkpoint_folder(config.backbone)])
    if (config.run / FILE_NAME).exists():
        log.info("%s is trained", config.run)
        return
    with timed(config.run, "train"):
        checkpoint = load_reward_model(config.backbone, new_head=True, reads_surprise=config.surprise)
        train_rows, held_rows = split_rows(config, checkpoint.inputs)
        trainer = make_trainer(config, checkpoint, train_rows, held_rows)
        trainer.train(resume_from_checkpoint=last_whole_checkpoint(config.run))
        save(config, checkpoint, len(train_rows))


def split_rows(config: PrmConfig, inputs: InputBuilder) -> tuple[PathRows, PathRows]:
    """Training and held-out solutions; all solutions of a problem are on one side."""
    trees = load_paths(config.dataset, config.max_paths_per_tree)
    random.Random(config.seed).shuffle(trees)
    held = max(1, int(len(trees) * config.held_out))
    if len(trees) <= held:
        raise ValueError(f"{config.dataset} has {len(trees)} problem(s); training needs one beside {held} held out")
    log.info("%d problems to train on, %d held out", len(trees) - held, held)
    flat = [[path for tree in part for path in tree] for part in (trees[held:], trees[:held])]
    batch = config.batch_size * config.accumulate
    ordered = [p for epoch in range(config.epochs) for p in in_length_batches(flat[0], batch, config.seed + epoch)]
    return PathRows(ordered, inputs), PathRows(flat[1], inputs)


class PathRows(Dataset[LabelledRow]):
    """Labelled solutions, made into model inputs when asked for."""

    def __init__(self, paths: Sequence[LabelledPath], inputs: InputBuilder) -> None:
        self.paths, self.inputs = paths, inputs

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> LabelledRow:
        return labelled_row(self.paths[index], self.inputs)


def make_trainer(config: PrmConfig, checkpoint: Checkpoint, train_rows: PathRows, held_rows: PathRows) -> Trainer:
    freeze(checkpoint.model, config.freeze)
    steps = math.ceil(len(train_rows) / (config.batch_size * config.accumulate))
    pad_id = checkpoint.inputs.pad_id
    trainer = StepTrainer(
        model=checkpoint.model,
        args=training_arguments(config),
        train_dataset=train_rows,
        eval_dataset=held_rows,
        data_collator=lambda rows: batch_rows(rows, pad_id),
        compute_metrics=held_out_metrics,
        callbacks=[Progress(steps)],
        optimizers=(make_optimizer(config, checkpoint.model), None),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def freeze(model: Any, what: str) -> None:
    if what == "vision":
        model.model.visual.requires_grad_(False)
    if what == "backbone":
        model.requires_grad_(False)
        model.score.requires_grad_(True)


def make_optimizer(config: PrmConfig, model: Any) -> torch.optim.Optimizer:
    head = list(model.score.parameters())
    backbone = [p for name, p in model.named_parameters() if p.requires_grad and not name.startswith("score.")]
    groups = [{"params": backbone, "lr": config.learning_rate}, {"params": head, "lr": config.head_learning_rate}]
    return torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=0.01)


class StepTrainer(Trainer):
    """The Trainer with our loss. Our own `compute_loss`, since the stock one hands over one label tensor only."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels_BS, kinds_BS = inputs["labels"], inputs["error_kinds"]
        outputs = model(**{name: value for name, value in inputs.items() if name not in self.label_names})
        # `num_items_in_batch` counts the labelled steps of the global batch, over devices and accumulated parts.
        # Gradients are averaged over devices afterwards, hence the factor.
        loss = step_loss(outputs.logits, labels_BS, kinds_BS, num_items_in_batch) * self.accelerator.num_processes
        # Metrics are made of the logits alone; the Trainer would gather whatever else stands in the outputs.
        return (loss, {"logits": outputs.logits}) if return_outputs else loss


def held_out_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """AUROC and accuracy of `correct` over the held-out steps, against their (fused, not true) labels."""
    labels_BS, _ = prediction.label_ids
    labelled_BS = labels_BS != IGNORE
    logits_N3 = torch.tensor(prediction.predictions[labelled_BS])
    rewards = logits_N3.float().softmax(-1)[:, CORRECT].numpy()
    targets = labels_BS[labelled_BS] >= 0.5
    return {"step_auroc": auroc(rewards, targets), "step_accuracy": float(np.mean((rewards >= 0.5) == targets))}


def training_arguments(config: PrmConfig) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(config.run),
        num_train_epochs=1,  # the order of the rows repeats them
        train_sampling_strategy="sequential",
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulate,
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0.1,  # below 1: a share of all steps
        max_grad_norm=1.0,
        label_names=["labels", "error_kinds"],
        logging_steps=20,
        eval_strategy="steps",
        eval_steps=config.checkpoint_every,
        save_strategy="steps",
        save_steps=config.checkpoint_every,
        save_total_limit=1,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=config.seed,
    )


def save(config: PrmConfig, checkpoint: Checkpoint, solutions: int) -> None:
    provenance = {
        "command": f"python -m train.prm --config {config.run / 'config.yaml'}",
        "backbone": config.backbone,
        "seed": config.seed,
        "data_hash": hashlib.sha256(config.dataset.read_bytes()).hexdigest()[:16],
        "solutions": solutions,
    }
    profile = {
        **asdict(checkpoint.profile),
        "head": "step",
        "aggregation": config.aggregation,
        "provenance": provenance,
    }
    save_reward_model(checkpoint, config.run, Profile(**profile))
    log.info("wrote %s", config.run)


if __name__ == "__main__":
    run(main, PrmConfig)
