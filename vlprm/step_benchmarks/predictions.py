"""What a model said of the steps of a solution, and a file of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlprm.data.importing import Record
from vlprm.errors import RecordError


@dataclass(frozen=True)
class Prediction:
    """Of each step its reward; or, where nothing else was stored, whether it is called correct. Or the cause why there
    is no result, one word to count by."""

    rewards: tuple[float, ...] | None = None
    calls: tuple[bool, ...] | None = None
    no_result: str = ""

    def called(self, threshold: float) -> tuple[bool, ...] | None:
        """Which steps are called correct: those with a reward of the threshold or more."""
        return self.calls if self.rewards is None else tuple(reward >= threshold for reward in self.rewards)


def of_scores(rewards: Sequence[float | None]) -> Prediction:
    """What `vlprm.scoring.tree.score` gives of a solution: no result where a step could not be read."""
    known = tuple(reward for reward in rewards if reward is not None)
    return Prediction(known) if len(known) == len(rewards) else Prediction(no_result="unread_step")


def to_record(key: str, prediction: Prediction) -> dict[str, Any]:
    """As it is stored: `{"key": ..., "rewards": [...]}`, `{"key": ..., "calls": [...]}`, or with `no_result`."""
    if prediction.no_result:
        return {"key": key, "no_result": prediction.no_result}
    if prediction.rewards is None:
        return {"key": key, "calls": prediction.calls}
    return {"key": key, "rewards": prediction.rewards}


def from_record(record: Record, steps: int) -> Prediction:
    """What `to_record` wrote, of a solution of so many steps. Dropped where it is not that."""
    if record.get("no_result"):
        return Prediction(no_result=str(record["no_result"]))
    if "calls" in record:
        return of_calls(record["calls"], steps)
    if "rewards" not in record:
        raise RecordError("no_rewards", "it has no rewards; give a number for each step, or null")
    return of_rewards(record["rewards"], steps)


def of_rewards(rewards: Any, steps: int) -> Prediction:
    """Of another number of steps they are no result: nobody knows which steps they are of. null is none either."""
    if rewards is None:
        return Prediction(no_result="null")
    if not isinstance(rewards, Sequence) or not all(type(reward) in (int, float) for reward in rewards):
        raise RecordError("rewards_type", "its rewards are no list of numbers")
    if not all(map(math.isfinite, rewards)):
        return Prediction(no_result="not_finite")
    return Prediction(tuple(map(float, rewards))) if len(rewards) == steps else Prediction(no_result="step_count")


def of_calls(calls: Any, steps: int) -> Prediction:
    """true or 1 of a step that is called correct, false or 0 of one that is called wrong."""
    if calls is None:
        return Prediction(no_result="null")
    if not isinstance(calls, Sequence) or not all(call in (0, 1) for call in calls):
        raise RecordError("calls_type", "its verdicts are no list of true and false, or 1 and 0")
    return Prediction(calls=tuple(map(bool, calls))) if len(calls) == steps else Prediction(no_result="step_count")
