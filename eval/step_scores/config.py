"""Configs of the commands that read or score steps: `eval.steps`, `eval.flips`, `eval.critiques`, `eval.parity`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from vlprm.data.ablation import History, Words
from vlprm.scoring.config import ScorerConfig
from vlprm.serving.config import ModelConfig
from vlprm.tasks import TASKS

ImageMode = Literal["kept", "removed", "swapped"]


@dataclass(frozen=True)
class StepsConfig:
    """Evaluate step rewards.

    Args:
        benchmark: step benchmark: visual_process_bench, process_bench, prm_bench, vlrm_bench, synthetic or one_error.
        data: folder of the benchmark as published; for synthetic and one_error, a run folder of eval.run.
        run: folder to write.
        reward_model: model that scores the solutions; of several, the rewards are averaged and their spread is
            reported.
        scorer: how the model scores.
        predictions: file of predictions to evaluate instead, in the benchmark's layout or that of predictions.jsonl.
        images: images that the model sees: its own (kept), none (removed), or of another problem (swapped).
        words: what the model reads of a step: all (kept), numbers, operators and names alone (removed), or the other
            words alone (only).
        history: whether the model reads the steps before a step (kept), or each step alone after the prompt (removed).
        threshold_from: run folder of eval.steps on other solutions; its best threshold is used in addition to 0.5.
        groups: groups to measure, such as subsets, classes, sources or tasks; empty for all.
        rows: number of solutions, taken from the groups in turn; 0 for all.
        unit: solutions scored and recorded together.
    """

    benchmark: str
    data: Path
    run: Path
    reward_model: tuple[ModelConfig, ...] = ()
    scorer: ScorerConfig = ScorerConfig()
    predictions: Path | None = None
    images: ImageMode = "kept"
    words: Words = "kept"
    history: History = "kept"
    threshold_from: Path | None = None
    groups: tuple[str, ...] = ()
    rows: NonNegativeInt = 0
    unit: PositiveInt = 50


@dataclass(frozen=True)
class FlipsConfig:
    """Measure whether step rewards follow the image.

    Args:
        run: folder to write.
        reward_model: model that scores the steps; of several, the rewards are averaged.
        scorer: how the model scores.
        tasks: task names or module paths; the families must list changes of their scenes.
        split: split of the tasks.
        problems: number of problems, taken from the tasks in turn.
        seed: random seed of the solutions and changes.
        unit: problems scored and recorded together.
    """

    run: Path
    reward_model: tuple[ModelConfig, ...]
    scorer: ScorerConfig = ScorerConfig()
    tasks: tuple[str, ...] = tuple(TASKS)
    split: str = "test"
    problems: PositiveInt = 200
    seed: int = 0
    unit: PositiveInt = 50


@dataclass(frozen=True)
class CritiquesConfig:
    """Evaluate critiques.

    Args:
        candidates: run folder of eval.run with the candidates.
        reward_model: reward model trained to write critiques.
        run: folder to write.
        first: index of the first problem.
        problems: number of problems whose candidates are critiqued.
        tasks: task names or module paths, as passed to eval.run.
    """

    candidates: Path
    reward_model: ModelConfig
    run: Path
    first: NonNegativeInt = 0
    problems: PositiveInt = 50
    tasks: tuple[str, ...] = tuple(TASKS)


@dataclass(frozen=True)
class ParityConfig:
    """Compare served with in-process scores.

    Args:
        reward_model: reward model and its servers; device and dtype apply to this process.
        candidates: run folder of eval.run with the candidates.
        bound: largest allowed gap between the two probabilities that a step is correct.
        problems: number of problems whose candidates are scored, from the first.
        tasks: task names or module paths, as passed to eval.run.
    """

    reward_model: ModelConfig
    candidates: Path
    bound: PositiveFloat = 1e-4
    problems: PositiveInt = 8
    tasks: tuple[str, ...] = tuple(TASKS)
