"""What `data_synth.judge` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt

from vlprm.serving.config import ModelConfig
from vlprm.tasks import TASKS


@dataclass(frozen=True)
class AskConfig:
    """How a model is asked.

    Args:
        template: judge@1 (no reference), judge_answer@1, or judge_reference@1 (answer and solution).
        samples: judgements of a solution; a step's verdict is the majority's, and its agreement is kept.
        tries: how often a judgement that cannot be read is asked for again; then it is no result.
        solutions: most solutions of a tree that are judged, and that training will learn from
            (vlprm/data/selection.py).
        temperature: of the judge's sampling; above 0 where a second try is to differ from the first.
        max_tokens: of a judgement.
    """

    template: Literal["judge@1", "judge_answer@1", "judge_reference@1"] = "judge@1"
    samples: PositiveInt = 1
    tries: PositiveInt = 3
    solutions: PositiveInt = 8
    temperature: NonNegativeFloat = 0.7
    max_tokens: PositiveInt = 4096


@dataclass(frozen=True)
class JudgeConfig:
    """Judge the steps of search trees.

    Args:
        trees: the run folder of data_synth.trees.
        run: folder to write.
        judge: oracle (of synthetic tasks) or model.
        tasks: oracle: task names or module paths, as they were given to data_synth.trees.
        error_rate: oracle: declared rate of its errors.
        seed: decides the oracle's errors, and the model's samples.
        model: the model that judges. With servers, it may be any chat model: verdicts have `checkpoint` as its name.
        ask: how a model is asked.
        in_flight: most trees that are judged at once.
    """

    trees: Path
    run: Path
    judge: Literal["oracle", "model"] = "oracle"
    tasks: tuple[str, ...] = tuple(TASKS)
    error_rate: ClosedUnitInterval = 0.1
    seed: int = 0
    model: ModelConfig | None = None
    ask: AskConfig = AskConfig()
    in_flight: PositiveInt = 64
