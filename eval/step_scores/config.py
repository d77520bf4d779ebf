"""What the commands that read or score stored steps are asked for: `eval.steps`, `eval.critiques`, `eval.parity`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from vlprm.serving.config import ModelConfig
from vlprm.tasks import TASKS

ImageMode = Literal["kept", "removed", "swapped"]


@dataclass(frozen=True)
class StepsConfig:
    """Measure step rewards.

    Args:
        benchmark: visual_process_bench, process_bench, prm_bench, vlrm_bench, or synthetic.
        data: folder of the benchmark as it is published; for synthetic, a run folder of eval.run.
        run: folder to write.
        reward_model: the model that scores the solutions, in this process.
        predictions: in its place, a file of predictions: the benchmark's own layout or that of predictions.jsonl.
        images: as they are (kept), none (removed), or those of another problem of the group (swapped).
        threshold_from: run folder of eval.steps on other solutions, whose best threshold is used here beside 0.5.
        groups: subsets, classes, sources or tasks that are measured; all if there are none.
        rows: how many solutions, the groups taking turns; 0 for all.
        unit: solutions that are scored together and recorded together.
    """

    benchmark: str
    data: Path
    run: Path
    reward_model: ModelConfig | None = None
    predictions: Path | None = None
    images: ImageMode = "kept"
    threshold_from: Path | None = None
    groups: tuple[str, ...] = ()
    rows: NonNegativeInt = 0
    unit: PositiveInt = 50


@dataclass(frozen=True)
class CritiquesConfig:
    """Measure critiques.

    Args:
        candidates: run folder of eval.run.
        reward_model: a reward model that has learnt critiques.
        run: folder to write.
        first: the problem to begin with.
        problems: how many problems' candidates are criticised.
        tasks: task names or module paths, as they were given to eval.run.
    """

    candidates: Path
    reward_model: ModelConfig
    run: Path
    first: NonNegativeInt = 0
    problems: PositiveInt = 50
    tasks: tuple[str, ...] = tuple(TASKS)


@dataclass(frozen=True)
class ParityConfig:
    """Compare served scores with those of this process.

    Args:
        reward_model: a reward model that servers serve; its device and dtype are those of this process.
        candidates: run folder of eval.run.
        bound: the largest gap between two probabilities of correct that passes.
        problems: whose candidates are scored, from the first on.
        tasks: task names or module paths, as they were given to eval.run.
    """

    reward_model: ModelConfig
    candidates: Path
    bound: PositiveFloat = 1e-4
    problems: PositiveInt = 8
    tasks: tuple[str, ...] = tuple(TASKS)
