"""Config of the command that measures preferences: `eval.preferences`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jsonargparse.typing import NonNegativeInt, PositiveInt

from vlprm.schema import Aggregation
from vlprm.scoring.config import ScorerConfig
from vlprm.serving.config import ModelConfig


@dataclass(frozen=True)
class PreferencesConfig:
    """Evaluate preferences between two responses.

    Args:
        benchmark: pair benchmark: mmrb2, vl_rewardbench or multimodal_rewardbench.
        run: folder to write.
        data: folder of the benchmark as published; null to read it from the Hub.
        reward_model: model that scores the steps of both responses; of several, the rewards are averaged.
        scorer: how the model scores.
        aggregation: rule that aggregates the step rewards of a response into one reward.
        judge: model that is asked which response is better, in place of a reward model.
        samples: answers of the judge per pair and order; one is greedy.
        seed: random seed of the judge's answers and of the orders that are drawn.
        groups: groups to measure, such as categories or sources; empty for all.
        rows: number of pairs, taken from the groups in turn; 0 for all.
        unit: pairs scored and recorded together.
    """

    benchmark: str
    run: Path
    data: Path | None = None
    reward_model: tuple[ModelConfig, ...] = ()
    scorer: ScorerConfig = ScorerConfig()
    aggregation: Aggregation = "min"
    judge: ModelConfig | None = None
    samples: PositiveInt = 1
    seed: int = 0
    groups: tuple[str, ...] = ()
    rows: NonNegativeInt = 0
    unit: PositiveInt = 50
