"""How reward models score, in a config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import PositiveInt

from vlprm.errors import UserError
from vlprm.schema import Aggregation


@dataclass(frozen=True)
class ScorerConfig:
    """How reward models score.

    Args:
        kind: steps (one reward per step), whole (the solution is read as one step and rewarded at its end), or
            critiques (share of sampled critiques that call a step right; needs a model trained to write critiques).
        critiques: critiques sampled per solution.
    """

    kind: Literal["steps", "whole", "critiques"] = "steps"
    critiques: PositiveInt = 4

    def check(self, aggregation: Aggregation) -> None:
        """UserError if the aggregation does not fit the kind of reward."""
        if self.kind == "whole" and aggregation != "last":
            raise UserError("scorer.kind whole rewards a solution only at its end; set search.aggregation to last")
