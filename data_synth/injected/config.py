"""Config of `data_synth.inject`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt

from vlprm.serving.config import ModelConfig
from vlprm.tasks import TASKS

Kind = Literal["perception", "reasoning"]


@dataclass(frozen=True)
class InjectConfig:
    """Put wrong siblings of right steps into a copy of search trees.

    Args:
        trees: run folder of data_synth.trees.
        run: run folder to write; later stages read it like one of data_synth.trees.
        maker: who writes the wrong steps: the drawn family, which knows the truth (family), or a model.
        tasks: family: task names or module paths, as given to data_synth.trees.
        kinds: kinds of errors to inject.
        per_tree: maximum number of injected steps per tree.
        share: maximum share of a tree's steps that are injected.
        seed: random seed of the choice of steps and of the model's samples.
        model: the model that rewrites steps.
        temperature: sampling temperature of the model.
        max_tokens: maximum tokens per rewritten step.
        in_flight: maximum number of trees that the model works on at once.
    """

    trees: Path
    run: Path
    maker: Literal["family", "model"] = "family"
    tasks: tuple[str, ...] = tuple(TASKS)
    kinds: tuple[Kind, ...] = ("perception", "reasoning")
    per_tree: PositiveInt = 2
    share: ClosedUnitInterval = 0.1
    seed: int = 0
    model: ModelConfig | None = None
    temperature: NonNegativeFloat = 0.7
    max_tokens: PositiveInt = 512
    in_flight: PositiveInt = 64
