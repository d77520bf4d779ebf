"""Config of `data_synth.judge`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt

from vlprm.errors import UserError
from vlprm.labels.sources import declared
from vlprm.serving.config import ModelConfig
from vlprm.tasks import TASKS

JUDGEMENTS = "judgements.jsonl"  # the records of a run


@dataclass(frozen=True)
class SamplingConfig:
    """Prompt and sampling of the judge model.

    Args:
        template: judge prompt: judge@1 (no reference), judge_answer@1 (gold answer), judge_reference@1 (gold answer
            and solution), judge_reference@2 (also aligns each step with the solution), or judge_premises@1 (each step
            alone, with the steps that it builds on).
        samples: judgements per solution; the majority gives a step's verdict, and the agreement is stored. For
            judge: ask, readings per question, which must all agree.
        tries: requests for a judgement until it can be read; after them it counts as no result.
        solutions: maximum number of solutions per tree that are judged, and used for training.
        temperature: sampling temperature of the judge; above 0, a second try can differ from the first.
        max_tokens: maximum tokens per judgement.
    """

    template: Literal["judge@1", "judge_answer@1", "judge_reference@1", "judge_reference@2", "judge_premises@1"] = (
        "judge@1"
    )
    samples: PositiveInt = 1
    tries: PositiveInt = 3
    solutions: PositiveInt = 8
    temperature: NonNegativeFloat = 0.7
    max_tokens: PositiveInt = 4096


@dataclass(frozen=True)
class JudgeConfig:
    """Judge the steps of search trees.

    Args:
        trees: run folder of data_synth.trees.
        run: run folder to write.
        judge: who judges: the ground truth with errors (oracle; synthetic tasks only), a model, a checker (check), or a
            model that reads the image again without seeing the step (ask; without a model, a simulated reader).
        check: check: what is checked: that a step of a drawn problem follows from those before it (deduction), or that
            no step states a false equality (arithmetic).
        tasks: oracle, deduction, simulated reader: task names or module paths, as given to data_synth.trees.
        error_rate: oracle and simulated reader: probability of a wrong verdict or a wrong reading.
        seed: random seed of the oracle's errors and of the model's samples.
        model: the judge model; a served one may be any chat model, and verdicts name its `checkpoint`.
        sampling: prompt and sampling of the judge model.
        in_flight: maximum number of trees judged at once.
        specificity: share of the correct steps that the judge calls correct, if it is known; without it,
            data_synth.label estimates both rates, which needs several kinds of steps. A check has its own, and takes no
            others.
        sensitivity: share of the wrong steps that the judge calls wrong, if it is known.
    """

    trees: Path
    run: Path
    judge: Literal["oracle", "model", "check", "ask"] = "oracle"
    tasks: tuple[str, ...] = tuple(TASKS)
    error_rate: ClosedUnitInterval = 0.1
    seed: int = 0
    model: ModelConfig | None = None
    sampling: SamplingConfig = SamplingConfig()
    in_flight: PositiveInt = 64
    check: Literal["deduction", "arithmetic"] = "deduction"
    specificity: ClosedUnitInterval | None = None
    sensitivity: ClosedUnitInterval | None = None

    @property
    def rates(self) -> dict[str, float] | None:
        """The rates that the user declares; None if they are to be estimated. UserError as of `declared_rates`."""
        return declared_rates(self.specificity, self.sensitivity)

    @property
    def needs_scenes(self) -> bool:
        """Whether the judge knows drawn problems alone."""
        simulated = self.judge == "ask" and self.model is None
        return self.judge == "oracle" or simulated or (self.judge == "check" and self.check == "deduction")


def declared_rates(specificity: float | None, sensitivity: float | None) -> dict[str, float] | None:
    """The rates that a source declares in its records; None without any. UserError if one is missing or is not between
    0 and 1."""
    if specificity is None and sensitivity is None:
        return None
    if specificity is None or sensitivity is None:
        raise UserError("specificity and sensitivity are declared together; give both, or neither to estimate them")
    declared(specificity, sensitivity)
    return {"specificity": specificity, "sensitivity": sensitivity}
