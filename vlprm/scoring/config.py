"""Config of scorers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt

from vlprm.errors import UserError
from vlprm.schema import Aggregation


@dataclass(frozen=True)
class ScorerConfig:
    """How reward models score.

    Args:
        kind: kind of rewards: steps (one per step), whole (one per solution, read as a single step), critiques (sampled
            critiques call the steps up to this one right; needs a model that writes critiques), judge or first_error
            (share of answers of any model that call the step right, or find no wrong step up to it), joint (any model
            in this process: probability of no wrong step so far, from its verdicts), or likelihood (any model in this
            process: probability of the step's least likely token).
        value: steps and whole: weight of the value in a reward, from 0 (the probability of correct alone) to 1 (the
            value alone); needs a reward model trained with loss.value.
        risk: steps and whole: standard deviations that a reward is lowered by (BetaPRM's lambda); needs a reward model
            trained with loss.concentration: learned.
        critiques: critiques or answers of a judge sampled per solution.
        decision: critiques: the share that calls a step right, or the mean probability of `right` where the verdict
            begins; a critique whose verdict is its first line needs only one sample for the probability.
        memory_tokens: maximum number of tokens in the memory of a reward model in this process, kept and new; null for
            as many as fit into the free memory of its GPU.
    """

    kind: Literal["steps", "whole", "critiques", "judge", "first_error", "joint", "likelihood"] = "steps"
    value: ClosedUnitInterval = 0.0
    risk: NonNegativeFloat = 0.0
    critiques: PositiveInt = 4
    decision: Literal["share", "probability"] = "share"
    memory_tokens: PositiveInt | None = None

    def check(self, aggregation: Aggregation) -> None:
        """UserError if the aggregation does not fit the kind of reward."""
        if self.kind == "whole" and aggregation != "last":
            raise UserError("scorer.kind whole rewards a solution only at its end; set search.aggregation to last")
