"""Config of `data_synth.select`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt

from vlprm.scoring.config import ScorerConfig
from vlprm.serving.config import ModelConfig
from vlprm.tasks import TASKS

By = Literal["prm_min", "prm_mean", "likeliest", "outcome", "random", "mixed", "balanced"]


@dataclass(frozen=True)
class SelectConfig:
    """Select the solutions of a pool or a dataset that are worth training on.

    Args:
        run: run folder to write; the solutions are its `selected.parquet`.
        pool: run folder of eval.run; its stored rewards rank the candidates.
        dataset: parquet file of data_synth.label; its labels rank the solutions.
        by: rank by the smallest or mean step reward (prm_min, prm_mean), the least surprise (likeliest), the right
            answer (outcome), at random, the mean step reward plus alpha for a right answer (mixed), or BIS, which
            prefers solutions with right and wrong steps (balanced).
        alpha: mixed: what a right answer adds; balanced: what a solution with equal labels is worth.
        keep: share that is selected of the solutions that per_problem and unlike leave.
        per_problem: maximum number of solutions per problem.
        unlike: least share of a solution's steps that a better one of its problem does not have; equal solutions are
            always left out.
        reward_model: models that score the solutions again; without any, stored rewards or labels are used.
        scorer: how the models score.
        tasks: names or module paths of the drawn tasks of a pool, and of those whose ground truth is measured.
        format: rows of whole trees, which train.sft and train.prm read (vlprm), or one row per turn of the policy with
            the columns of TRL's SFTTrainer (trl).
        policy: format=trl: checkpoint whose prompt and crops the rows show.
        in_flight: problems that are scored at the same time.
        seed: random seed of the order of equal solutions.
    """

    run: Path
    pool: Path | None = None
    dataset: Path | None = None
    by: By = "mixed"
    alpha: NonNegativeFloat = 1.0
    keep: ClosedUnitInterval = 0.25
    per_problem: PositiveInt = 4
    unlike: ClosedUnitInterval = 0.25
    reward_model: tuple[ModelConfig, ...] = ()
    scorer: ScorerConfig = ScorerConfig()
    tasks: tuple[str, ...] = tuple(TASKS)
    format: Literal["vlprm", "trl"] = "vlprm"
    policy: str = "builtin/policy"
    in_flight: PositiveInt = 64
    seed: int = 0
