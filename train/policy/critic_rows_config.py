"""Config of `train.critic_rows`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, PositiveFloat, PositiveInt

from vlprm.serving.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class CriticRowsConfig:
    """Make training rows for a critic from labelled solutions.

    Args:
        dataset: parquet file of data_synth.label.
        critic: model that writes critiques.
        run: run folder to write; the rows are its kept.parquet, pairs.parquet or prompts.parquet.
        rows: critiques that agree with the labels, in TRL's prompt-completion format (kept); a critique that agrees
            with one that does not, in TRL's preference format (pairs); or the questions alone, with the columns that
            train.grpo and vlprm.integrations.trl_critic read (prompts).
        samples: critiques sampled of each step.
        temperature: sampling temperature.
        solutions: maximum number of solutions per problem.
        threshold: a step is wrong if its target is at most this value; default: by fusion rule, as in training.
        policy: a correction is also tested by solutions in which this policy goes on from it.
        refinements: policy: solutions per correction.
        helped: policy: a critique is kept if at least this share of its refinements is right.
        max_tokens: policy: maximum tokens per turn.
        in_flight: problems in work at the same time.
        seed: random seed of all samples.
    """

    dataset: Path
    critic: ModelConfig
    run: Path
    rows: Literal["kept", "pairs", "prompts"] = "pairs"
    samples: PositiveInt = 8
    temperature: PositiveFloat = 1.0
    solutions: PositiveInt = 8
    threshold: ClosedUnitInterval | None = None
    policy: ModelConfig | None = None
    refinements: PositiveInt = 4
    helped: ClosedUnitInterval = 0.5
    max_tokens: PositiveInt = 200
    in_flight: PositiveInt = 16
    seed: int = 0
