"""Train a step-reward model on step labels.

    python -m train.prm --config configs/demo/prm.yaml
    accelerate launch --config_file configs/accelerate/fsdp2.yaml -m train.prm --config configs/train/vl_prm.yaml

The same command resumes a killed run from its last checkpoint, and reaches the weights of an uninterrupted run.
"""

from __future__ import annotations

import hashlib
import logging
import math
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch
from accelerate import PartialState
from transformers import PrinterCallback, Trainer, TrainingArguments

from train.reward import advice, card, plan
from train.reward.batches import evened, plan_batches
from train.reward.checks import check
from train.reward.config import PrmConfig
from train.reward.curves import Curves
from train.reward.data import check_pairs, class_weights, examples_of, learnable, rows_of
from train.reward.model import new_model, parameter_groups, trainable
from train.reward.progress import Progress, last_whole_checkpoint, refuse_data_parallel
from train.reward.split import held_out
from train.reward.trainer import Batches, StepTrainer
from train.reward.trees import load_trees
from vlprm.errors import UserError
from vlprm.model.checkpoint_config import FILE_NAME
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import Checkpoint, checkpoint_folder
from vlprm.model.lora import backbone_provenance
from vlprm.runs.config import dump, run
from vlprm.runs.folder import open_run, timed, write_atomically

log = logging.getLogger(__name__)


def main(config: PrmConfig) -> None:
    """Run `vlprm train`."""
    refuse_data_parallel()
    check(config)
    if config.dry_run:
        describe(config)
        return
    with PartialState().main_process_first():
        open_run(config.run, dump(config), config.seed, [config.dataset, checkpoint_folder(config.backbone)])
    if (config.run / FILE_NAME).exists():
        log.info("%s is already trained", config.run)
        return
    # All processes take the same time, so one of them measures it.
    with timed(config.run, "train") if PartialState().is_main_process else nullcontext():
        checkpoint = new_model(config)
        trainer = make_trainer(config, checkpoint, *split_rows(config, checkpoint.inputs))
        trainer.train(resume_from_checkpoint=last_whole_checkpoint(config.run))
        save(config, checkpoint, trainer)


def split_rows(config: PrmConfig, inputs: InputBuilder) -> tuple[Batches, Batches]:
    """Training and held-out batches. Problems that share an image are on the same side. UserError on unusable data."""
    problems = load_trees(config.dataset, config.rows, config.loss.threshold)
    try:
        problems, unlabelled = learnable(problems, config.loss)
        learnt, kept = held_out(problems, config.held_out, config.seed)
    except ValueError as error:
        raise UserError(f"{config.dataset}: {error}") from error
    weights = class_weights(learnt, config.loss)
    train, sizes = examples_of(learnt, config.rows, inputs, config.loss)
    check_pairs(train, config.loss)
    shown, _ = examples_of(kept, config.rows, inputs, config.loss)
    log.info("%d problems in %d rows (%d tokens), %d held out", len(learnt), len(train), sum(sizes), len(kept))
    budget = config.rows.batch_tokens
    batches = [b for epoch in range(config.epochs) for b in plan_batches(train, sizes, budget, config.seed + epoch)]
    batches = evened(batches, config.accumulate * PartialState().num_processes)
    advice.on_untagged_steps(learnt, inputs.config.prompt_template)
    advice.on_few_steps(len(batches) // (config.accumulate * PartialState().num_processes), config)
    # One row per batch, because metrics from all devices are gathered row by row.
    held_batches = [[example] for example in shown]
    left_out = {
        "solutions_without_labels": unlabelled,
        "rows_left_out": len(rows_of(learnt, config.rows)) - len(train),
        "eval_rows_left_out": len(rows_of(kept, config.rows)) - len(shown),
    }
    return (
        Batches(batches, inputs, config.loss, weights, left_out),
        Batches(held_batches, inputs, config.loss, weights),
    )


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
    curves = Curves([example[0].problem.id for (example,) in held_out.batches])
    trainer = StepTrainer(
        loss=config.loss,
        parameters=partial(parameter_groups, config, checkpoint.inputs.family),
        model=model,
        args=training_arguments(config, steps),
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


def training_arguments(config: PrmConfig, steps: int) -> TrainingArguments:
    """The Trainer's arguments for a config and its number of optimizer steps."""
    return TrainingArguments(
        output_dir=str(config.run),
        num_train_epochs=1,  # the planned batches already contain all epochs
        train_sampling_strategy="sequential",
        per_device_train_batch_size=1,  # a dataset item is a whole batch
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=config.accumulate,
        activation_checkpointing=config.checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},  # re-entrant needs inputs with gradients
        # With checkpointing, the Trainer would otherwise require a gradient of every trained parameter at every step;
        # some families have layers whose output is not used.
        ddp_find_unused_parameters=True,
        bf16=config.bfloat16,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup,  # below 1: a share of all steps
        max_grad_norm=1.0,
        label_names=["labels", "error_kinds", "wrong"],
        logging_steps=max(1, min(20, steps // 10)),
        eval_strategy="steps" if config.held_out else "no",
        eval_steps=config.checkpoint_every,
        save_strategy="steps",
        save_steps=config.checkpoint_every,
        save_total_limit=1,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to=config.report_to,
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=config.seed,
    )


def save(config: PrmConfig, checkpoint: Checkpoint, trainer: Trainer) -> None:
    """Save a transformers folder with `vlprm.json`. That file is written last and marks the folder as complete."""
    trainer.save_model(str(config.run))  # on all processes, as each may hold a shard of the weights
    if not PartialState().is_main_process:
        return
    provenance = {
        "command": f"python -m train.prm --config {config.run.name}/config.yaml",
        "backbone": config.backbone,
        "license": card.license_of(config.backbone),
        "surprise": config.surprise,
        "seed": config.seed,
        "data_hash": hashlib.sha256(config.dataset.read_bytes()).hexdigest()[:16],
        "optimizer_steps": trainer.state.global_step,
        **(backbone_provenance(config.backbone, config.run) if config.lora_rank else {}),
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
