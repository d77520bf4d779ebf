"""Train a step-reward model on step labels.

    python -m train.prm --config configs/demo/prm.yaml
    accelerate launch --config_file configs/accelerate/fsdp2.yaml -m train.prm --config configs/train/vl_prm.yaml

The same command resumes a killed run from its last checkpoint, and reaches the weights of an uninterrupted run.
"""

from __future__ import annotations

import logging
import math
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from accelerate import PartialState
from transformers import PrinterCallback, Trainer

from train.loop.progress import Progress, last_whole_checkpoint, refuse_data_parallel
from train.loop.trainer import training_arguments
from train.reward import card, plan
from train.reward.checks import check
from train.reward.config import PrmConfig
from train.reward.curves import Curves
from train.reward.model import new_model, parameter_groups, provenance_of, trainable
from train.reward.planning import split_rows
from train.reward.trainer import Batches, StepTrainer, one_sentence
from vlprm.model.checkpoint_config import CHECKPOINT_FILE
from vlprm.model.loading import Checkpoint, checkpoint_folder
from vlprm.model.lora import origin
from vlprm.runs.config import dump, run
from vlprm.runs.folder import open_run, sha256_of, timed, write_atomically

log = logging.getLogger(__name__)

AHEAD = 4  # batches that each data-loader process has ready


def main(config: PrmConfig) -> None:
    """Run `vlprm train`."""
    refuse_data_parallel()
    check(config)
    if config.dry_run:
        describe(config)
        return
    with PartialState().main_process_first():
        open_run(config.run, dump(config), config.seed, [*config.datasets, checkpoint_folder(config.backbone)])
    if (config.run / CHECKPOINT_FILE).exists():
        log.info("%s is already trained", config.run)
        return
    # All processes take the same time, so one of them measures it.
    with timed(config.run, "train") if PartialState().is_main_process else nullcontext():
        checkpoint = new_model(config)
        trainer = make_trainer(config, checkpoint, *split_rows(config, checkpoint.inputs))
        with one_sentence():
            trainer.train(resume_from_checkpoint=last_whole_checkpoint(config.run))
        save(config, checkpoint, trainer)


def describe(config: PrmConfig) -> None:
    """Print the resolved config and the plan of the run (`train.reward.plan`), without loading weights."""
    checkpoint = new_model(config, shapes_only=True)
    train, _ = split_rows(config, checkpoint.inputs)
    model = trainable(config, checkpoint).to("meta")  # peft makes adapters on the CPU
    print(dump(config))
    print(plan.report(config, checkpoint.inputs, model, train))


def make_trainer(config: PrmConfig, checkpoint: Checkpoint, train: Batches, held_out: Batches) -> Trainer:
    """The Trainer of a config, with progress lines in place of its own."""
    model = trainable(config, checkpoint)
    steps = math.ceil(len(train) / (config.accumulate * PartialState().num_processes))
    curves = Curves(held_out.ids())
    trainer = StepTrainer(
        loss=config.loss,
        parameters=partial(parameter_groups, config, checkpoint.inputs.family),
        model=model,
        args=training_arguments(
            config,
            steps,
            label_names=["labels", "error_kinds", "wrong", "counts"],
            eval_strategy="steps" if config.held_out else "no",
            eval_steps=config.checkpoint_every,
            dataloader_num_workers=config.workers,
            dataloader_prefetch_factor=AHEAD if config.workers else None,
            # They have the tokenizer's and the dataset's objects, which cannot be sent to a process that starts anew.
            dataloader_multiprocessing_context="fork" if config.workers else None,
        ),
        train_dataset=train,
        eval_dataset=held_out,
        data_collator=train.collate,
        compute_metrics=curves.measure,
        callbacks=[
            Progress(steps, train.left_out),
            curves,
        ],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def save(config: PrmConfig, checkpoint: Checkpoint, trainer: Trainer) -> None:
    """Save a transformers folder with `vlprm.json`. That file is written last and marks the folder as complete."""
    trainer.save_model(str(config.run))  # on all processes, as each may hold a shard of the weights
    if not PartialState().is_main_process:
        return
    known = provenance_of(config)
    provenance = {
        "command": f"python -m train.prm --config {config.run.name}/config.yaml",
        "license": card.license_of(config.backbone),
        **known,
        "data_hash": "+".join(sha256_of(path)[:16] for path in config.datasets),
        "optimizer_steps": trainer.state.global_step,
        **(origin("backbone", config.backbone, config.run) if config.lora_rank else {}),
        **(origin("reference", known["reference"], config.run) if "reference" in known else {}),
    }
    checkpoint_config = replace(checkpoint.config, aggregation=config.aggregation, provenance=provenance)
    checkpoint.inputs.processor.save_pretrained(config.run)
    inputs, shown = checkpoint.inputs, dump(card.without_paths(config))
    made = card.model_card(checkpoint_config, inputs.family, inputs.pixel_limits, shown, config.run)
    write_atomically(config.run / "README.md", made)
    checkpoint_config.save(config.run)
    log.info("wrote %s", config.run)


if __name__ == "__main__":
    run(main, PrmConfig)
