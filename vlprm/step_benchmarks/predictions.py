"""Predictions of a model on the steps of a solution, and their file format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from vlprm.data.importing import Record
from vlprm.errors import RecordError
from vlprm.schema import StepScore


@dataclass(frozen=True)
class Prediction:
    """The rewards of the steps, with their spreads if an ensemble gave them; or whether each step is called correct, if
    only that was stored; or one word for why the result is missing."""

    rewards: tuple[float, ...] | None = None
    calls: tuple[bool, ...] | None = None
    no_result: str = ""
    spreads: tuple[float, ...] | None = None

    def called(self, threshold: float) -> tuple[bool, ...] | None:
        """Which steps are called correct: those with a reward of at least `threshold`."""
        return self.calls if self.rewards is None else tuple(reward >= threshold for reward in self.rewards)


def of_scores(scores: Sequence[StepScore | None]) -> Prediction:
    """The prediction from a scorer's scores of a solution: no result if a step has none."""
    known = [score for score in scores if score is not None]
    if len(known) < len(scores):
        return Prediction(no_result="unread_step")
    spreads = tuple(score.spread for score in known if score.spread is not None)
    return Prediction(tuple(score.correct for score in known), spreads=spreads or None)


def to_record(key: str, prediction: Prediction) -> dict[str, Any]:
    """The stored form: `{"key": ..., "rewards": [...]}`, `{"key": ..., "calls": [...]}`, or with `no_result`."""
    if prediction.no_result:
        return {"key": key, "no_result": prediction.no_result}
    if prediction.rewards is None:
        return {"key": key, "calls": prediction.calls}
    spreads = {} if prediction.spreads is None else {"spreads": prediction.spreads}
    return {"key": key, "rewards": prediction.rewards, **spreads}


def from_record(record: Record, steps: int) -> Prediction:
    """Parse what `to_record` wrote, for a solution of `steps` steps. RecordError if it is malformed."""
    if record.get("no_result"):
        return Prediction(no_result=str(record["no_result"]))
    if "calls" in record:
        return of_calls(record["calls"], steps)
    if "rewards" not in record:
        raise RecordError("no_rewards", "it has no `rewards`; give one number per step, or null")
    found = of_rewards(record["rewards"], steps)
    if found.rewards is None or "spreads" not in record:
        return found
    return replace(found, spreads=of_rewards(record["spreads"], steps).rewards)


def of_rewards(rewards: Any, steps: int) -> Prediction:
    """Parse rewards. A wrong number of steps counts as no result, because it is unknown which steps they belong to;
    null counts likewise. RecordError if they are not numbers."""
    if rewards is None:
        return Prediction(no_result="null")
    if not isinstance(rewards, Sequence) or not all(type(reward) in (int, float) for reward in rewards):
        raise RecordError("rewards_type", "its `rewards` must be a list of numbers")
    if not all(map(math.isfinite, rewards)):
        return Prediction(no_result="not_finite")
    return Prediction(tuple(map(float, rewards))) if len(rewards) == steps else Prediction(no_result="step_count")


def of_calls(calls: Any, steps: int) -> Prediction:
    """Parse verdicts: true or 1 for a step called correct, false or 0 for one called wrong. RecordError otherwise."""
    if calls is None:
        return Prediction(no_result="null")
    if not isinstance(calls, Sequence) or not all(call in (0, 1) for call in calls):
        raise RecordError("calls_type", "its verdicts must be a list of true and false, or 1 and 0")
    return Prediction(calls=tuple(map(bool, calls))) if len(calls) == steps else Prediction(no_result="step_count")
