"""What `train.builtin` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveFloat, PositiveInt

from vlprm.builtin.size import Size
from vlprm.tasks import TASKS


@dataclass(frozen=True)
class BuiltinConfig:
    """Teach the built-in policy or backbone.

    Args:
        output_dir: checkpoint folder to write.
        start_from: checkpoint whose tokenizer is taken, and whose weights where names and shapes are equal.
        families: task names or module paths; one named twice has a double share.
        proofread: lessons of proofreading a careless draft, beside one of solving, for each problem.
        size: widths and depths of the model.
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
