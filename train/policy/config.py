"""Config of `train.builtin`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveFloat, PositiveInt

from vlprm.builtin.size import Size
from vlprm.tasks import TASKS


@dataclass(frozen=True)
class BuiltinConfig:
    """Train the built-in policy or backbone.

    Args:
        output_dir: checkpoint folder to write.
        start_from: checkpoint that provides the tokenizer, and the weights whose names and shapes match.
        families: task names or module paths; a name given twice gets a double share of the problems.
        proofread: lessons per problem that correct a wrong draft, in addition to one that solves the problem.
        size: widths and depths of the model.
        vocab_size: maximum size of the tokenizer's vocabulary.
        steps: optimizer steps.
        batch_size: lessons per optimizer step.
        learning_rate: peak learning rate of the warm-up and cosine schedule.
        workers: data loader processes.
        blind_spots: maps a concept to the probability that the teacher confuses it with the most similar one.
        slip_rate: probability that any other claim of the teacher is wrong.
        seed: random seed of the weights, the problems and the teacher's errors.
    """

    output_dir: Path
    start_from: str | None = None
    families: tuple[str, ...] = tuple(TASKS)
    proofread: NonNegativeInt = 0
    size: Size = Size()
    vocab_size: PositiveInt = 512
    steps: PositiveInt = 4000
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 1.2e-3
    workers: NonNegativeInt = 2
    blind_spots: dict[str, ClosedUnitInterval] = field(default_factory=dict)
    slip_rate: ClosedUnitInterval = 0.0
    seed: int = 0
