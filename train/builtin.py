"""Train the built-in policy and the built-in backbone: a small Qwen3-VL that solves the synthetic families in steps.

    python -m train.builtin --config configs/builtin/policy.yaml

The teacher is each family's own solver. For the backbone it is always right, and also corrects wrong drafts. For the
policy it has blind spots, declared in the config, so that the policy errs systematically, as real policies do.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import PartialState
from transformers import PrinterCallback, Trainer, TrainingArguments

from train.loop.progress import Progress, last_whole_checkpoint, refuse_data_parallel
from train.policy.config import BuiltinConfig
from train.policy.lessons import Curriculum, Lessons, batch_lessons, lesson, refuse_unknown_concepts
from vlprm.builtin.make import make_model, make_processor, make_tokenizer
from vlprm.model.checkpoint_config import CHECKPOINT_FILE, CheckpointConfig
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import checkpoint_folder, load_policy
from vlprm.prompts import user_text
from vlprm.runs.config import dump, run
from vlprm.runs.folder import open_run
from vlprm.schema import Problem
from vlprm.steps import join_steps
from vlprm.tasks import load_task

log = logging.getLogger(__name__)


def main(config: BuiltinConfig) -> None:
    """Run `vlprm builtin`."""
    refuse_data_parallel()
    refuse_unknown_concepts(curriculum(config))
    sources = [checkpoint_folder(config.start_from)] if config.start_from else []
    with PartialState().main_process_first():
        open_run(config.run, dump(config), config.seed, sources)
    if (config.run / CHECKPOINT_FILE).exists():
        log.info("%s is already trained", config.run)
        return
    started = time.time()
    model, processor = start(config)
    tokenizer = processor.tokenizer
    inputs = InputBuilder(processor, CheckpointConfig(), model.config)
    data = Lessons(curriculum(config), inputs, config.steps * config.batch_size)
    log.info("%.2fM parameters, %d tokens", model.num_parameters() / 1e6, len(tokenizer))
    log.info("one lesson:\n%s", tokenizer.decode(data[0].ids))
    trainer = Trainer(
        model=model,
        args=_arguments(config),
        train_dataset=data,
        data_collator=lambda rows: batch_lessons(rows, inputs),
        callbacks=[Progress(config.steps)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(config.run))
    if PartialState().is_main_process:
        save(config, model, processor, hours=(time.time() - started) / 3600)


def start(config: BuiltinConfig) -> tuple[Any, Any]:
    """The untrained model, or one with the weights of `start_from`, and its processor."""
    if config.start_from is None:
        tokenizer = make_tokenizer(_corpus(config), config.vocab_size)
        model = make_model(config.size, tokenizer, config.seed)
    else:
        source = load_policy(config.start_from)
        tokenizer = source.inputs.tokenizer
        model = make_model(config.size, tokenizer, config.seed)
        own, weights = model.state_dict(), source.model.state_dict()
        taken = {name: weight for name, weight in weights.items() if name in own and own[name].shape == weight.shape}
        model.load_state_dict(taken, strict=False)
        log.info("%d of %d weights loaded from %s", len(taken), len(own), config.start_from)
    return model, make_processor(tokenizer, config.size.patch, config.size.image_side)


def curriculum(config: BuiltinConfig) -> Curriculum:
    """The families and the teacher of a config."""
    families = tuple(load_task(name) for name in config.tasks)
    return Curriculum(families, config.proofread, config.blind_spots, config.slip_rate, config.seed)


def _first_lessons(config: BuiltinConfig) -> Iterator[tuple[Problem, str]]:
    taught = curriculum(config)
    for index in range(2000):
        given = lesson(taught, index, drawn=False)
        yield given.problem, join_steps(given.corrected_steps)


def _corpus(config: BuiltinConfig) -> list[str]:
    """Training text of the tokenizer: questions and solutions of the first lessons."""
    return [f"user\n{user_text('plain@1', problem)}\nassistant\n{text}\n" for problem, text in _first_lessons(config)]


def _arguments(config: BuiltinConfig) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(config.run),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(200, config.steps // 10),
        bf16=torch.cuda.is_available(),
        weight_decay=0.01,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        dataloader_num_workers=config.workers,
        dataloader_persistent_workers=config.workers > 0,
        train_sampling_strategy="sequential",
        logging_steps=50,
        save_steps=250,
        save_total_limit=1,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=config.seed,
    )


def data_hash(config: BuiltinConfig) -> str:
    """Hash of the ids and solutions of the first lessons: equal for equal tasks, teacher and seed."""
    rows = [(problem.id, text) for problem, text in _first_lessons(config)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def save(config: BuiltinConfig, model: Any, processor: Any, hours: float) -> None:
    """Save the weights in bfloat16, the processor, and `vlprm.json` with provenance."""
    provenance = {
        "command": "python -m train.builtin --config config.yaml",
        "seed": config.seed,
        "data_hash": data_hash(config),
        "hours": round(hours, 3),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
    }
    model.to(torch.bfloat16).save_pretrained(config.run)
    processor.save_pretrained(config.run)
    CheckpointConfig(provenance=provenance).save(config.run)
    log.info("wrote %s", config.run)


if __name__ == "__main__":
    run(main, BuiltinConfig)
