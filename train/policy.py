"""Teach a small Qwen3-VL to solve the synthetic families in steps: the built-in policy, and the built-in backbone.

    python -m train.policy --config configs/builtin/policy.yaml

The teacher is a family's own solver. A truthful teacher makes the backbone; a careless one, with blind spots that are
declared in the config, makes a policy whose errors are systematic, as those of real policies are.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainingArguments

from train.progress import Progress, last_whole_checkpoint, refuse_several_gpus
from vlprm.actions import execute_zoom
from vlprm.builtin.make import Size, make_model, make_processor, make_tokenizer
from vlprm.config import dump, run
from vlprm.images import open_image
from vlprm.inputs import IGNORE, InputBuilder, collate
from vlprm.profile import FILE_NAME, Profile
from vlprm.prompts import user_text
from vlprm.records import open_run
from vlprm.schema import ErrorKind, Problem, Step
from vlprm.steps import SEPARATOR, parse_step
from vlprm.tasks import TASKS, load_task
from vlprm.tasks.scene import rng_for
from vlprm.tasks.synthetic import Writer, truthful

log = logging.getLogger(__name__)
V = TypeVar("V")


@dataclass(frozen=True)
class PolicyConfig:
    """Teach the built-in policy or backbone.

    Args:
        output_dir: checkpoint folder to write.
        families: task names or module paths.
        size: widths and depths of the model, see vlprm.builtin.make.Size.
        vocab_size: most tokens that the tokenizer may have.
        steps: optimizer steps.
        batch_size: solutions a step.
        learning_rate: peak of a warm-up and cosine schedule.
        workers: processes that draw problems.
        blind_spots: concept -> probability that the teacher takes it for its likeliest confusion.
        slip_rate: probability of any other claim being wrong.
        seed: decides the weights, the problems and the teacher's slips.
    """

    output_dir: Path
    families: tuple[str, ...] = tuple(TASKS)
    size: Size = Size()
    vocab_size: int = 512
    steps: int = 4000
    batch_size: int = 64
    learning_rate: float = 1.2e-3
    workers: int = 2
    blind_spots: dict[str, float] = field(default_factory=dict)
    slip_rate: float = 0.0
    seed: int = 0


def main(config: PolicyConfig) -> None:
    refuse_several_gpus()
    open_run(config.output_dir, dump(config), config.seed)
    if (config.output_dir / FILE_NAME).exists():
        log.info("%s is trained", config.output_dir)
        return
    started = time.time()
    families = [load_task(name) for name in config.families]
    tokenizer = make_tokenizer(_corpus(config), config.vocab_size)
    processor = make_processor(tokenizer, config.size.patch)
    model = make_model(config.size, tokenizer, config.seed)
    inputs = InputBuilder(processor, Profile())
    data = Lessons(config, inputs)
    log.info("%d families, %.2fM parameters, %d tokens", len(families), model.num_parameters() / 1e6, len(tokenizer))
    log.info("one lesson:\n%s", tokenizer.decode(data.row(0).ids))
    trainer = Trainer(
        model=model,
        args=_arguments(config),
        train_dataset=data,
        data_collator=lambda rows: batch_lessons(rows, inputs.pad_id),
        callbacks=[Progress(config.steps)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(config.output_dir))
    save(config, model, processor, hours=(time.time() - started) / 3600)


class Lessons(Dataset[Any]):
    """Solved problems of the training split, drawn when asked for; lesson i is the same in every run."""

    def __init__(self, config: PolicyConfig, inputs: InputBuilder) -> None:
        self.config, self.inputs = config, inputs
        self.families = [load_task(name) for name in config.families]

    def __len__(self) -> int:
        return self.config.steps * self.config.batch_size

    def __getitem__(self, index: int) -> Any:
        return self.row(index)

    def row(self, index: int) -> Any:
        problem, texts = lesson(self.families, self.config, index)
        steps = [_executed(problem, parse_step(text), self.inputs) for text in texts]
        return self.inputs.row(problem, steps, closed=True)


def lesson(families: Sequence[Any], config: PolicyConfig, index: int) -> tuple[Problem, list[str]]:
    """The problem and the teacher's steps of lesson `index`; families take turns."""
    family = families[index % len(families)]
    problem = family.problem("train", index)
    return problem, family.solve(problem.meta["scene"], teacher(config, problem.id))


def teacher(config: PolicyConfig, problem_id: str) -> Writer:
    """A writer that errs as the config declares, the same way each time it meets the same problem."""
    if not config.blind_spots and not config.slip_rate:
        return truthful
    rng = rng_for("teacher", config.seed, problem_id)

    def write(kind: ErrorKind, concept: str, truth: V, near: Sequence[V]) -> V:
        if not near:
            return truth
        blind = config.blind_spots.get(concept)
        if blind is not None:
            return near[0] if rng.random() < blind else truth
        return rng.choice(near) if rng.random() < config.slip_rate else truth

    return write


def _executed(problem: Problem, step: Step, inputs: InputBuilder) -> Step:
    if step.kind != "zoom":
        return step
    zoomed = execute_zoom(step, inputs.profile.dialect, open_image(problem.images[0]).size, inputs.seen_size(problem))
    assert isinstance(zoomed, Step), f"{problem.id}: the teacher's zoom is refused: {zoomed}"
    return zoomed


def batch_lessons(rows: Sequence[Any], pad_id: int) -> dict[str, torch.Tensor]:
    """The padded batch, with a loss on what the policy itself writes."""
    batch = collate(rows, pad_id)
    del batch["step_ends"]
    labels_BT = torch.full_like(batch["input_ids"], IGNORE)
    for b, row in enumerate(rows):
        written = torch.tensor(row.written_mask)
        labels_BT[b, : len(row.ids)][written] = batch["input_ids"][b, : len(row.ids)][written]
    return {**batch, "labels": labels_BT}


def _corpus(config: PolicyConfig, lessons: int = 2000) -> list[str]:
    """What the tokenizer is trained on: rendered questions and solutions of the first lessons."""
    families = [load_task(name) for name in config.families]
    texts = []
    for index in range(lessons):
        problem, steps = lesson(families, config, index)
        texts.append(f"user\n{user_text('plain@1', problem)}\nassistant\n{SEPARATOR.join(steps)}\n")
    return texts


def _arguments(config: PolicyConfig) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(config.output_dir),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(200, config.steps // 10),
        weight_decay=0.01,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        dataloader_num_workers=config.workers,
        dataloader_persistent_workers=config.workers > 0,
        train_sampling_strategy="sequential",
        logging_steps=50,
        save_steps=500,
        save_total_limit=1,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=config.seed,
    )


def data_hash(config: PolicyConfig, lessons: int = 2000) -> str:
    """A hash over the ids and solutions of the first lessons: equal for equal tasks, teacher and seed."""
    families = [load_task(name) for name in config.families]
    rows = ((problem.id, steps) for problem, steps in (lesson(families, config, i) for i in range(lessons)))
    return hashlib.sha256(json.dumps(list(rows)).encode()).hexdigest()[:16]


def save(config: PolicyConfig, model: Any, processor: Any, hours: float) -> None:
    """Weights in bfloat16, the processor, and a profile that says how they were made."""
    provenance = {
        "command": "python -m train.policy --config config.yaml",
        "seed": config.seed,
        "data_hash": data_hash(config),
        "hours": round(hours, 3),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
    }
    model.to(torch.bfloat16).save_pretrained(config.output_dir)
    processor.save_pretrained(config.output_dir)
    Profile(provenance=provenance).save(config.output_dir)
    log.info("wrote %s", config.output_dir)


if __name__ == "__main__":
    run(main, PolicyConfig)
