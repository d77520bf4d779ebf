"""Training by ZeRO-2 and ZeRO-3 on two processes (gloo, CPU, a real DeepSpeed): the weights of one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState

from tests.train.test_distributed import CASES, alone, config_of, mixed, weights
from tests.train.two_processes import in_two, train_all, variables
from train.reward.trainer import StepTrainer

__all__ = ["alone", "config_of", "mixed"]  # fixtures
KILLED = ("step", "verdict, adapters")  # after the third step
pytestmark = [pytest.mark.deepspeed, pytest.mark.timeout(900)]


def train_by_zero(process: PartialState, stage: int, jobs: list[tuple[dict[str, str], Path]]) -> None:
    train = StepTrainer.train

    def checked(self: StepTrainer, **kwargs: Any) -> Any:
        result = train(self, **kwargs)
        assert self.model_wrapped.zero_optimization_stage() == stage
        return result

    StepTrainer.train = checked  # type: ignore[method-assign]
    train_all(process, jobs)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stage", [2, 3])
def test_two_processes_give_the_weights_of_one(
    config_of: Callable[[str, str, int], Path], alone: Callable[[str], Path], stage: int, case: str
) -> None:
    environment, config = variables(f"zero{stage}"), config_of(f"zero{stage}", case, 1)
    if case in KILLED:
        stop = config.with_suffix(".stop")
        stop.write_text("3")
        in_two(train_by_zero, stage, [({}, config)], environment=environment)
        stop.unlink()
        assert [path.name for path in config.with_suffix("").glob("checkpoint-*")] == ["checkpoint-2"]
    in_two(train_by_zero, stage, [({}, config)], environment=environment)
    found, expected = weights(config.with_suffix("")), weights(alone(case))
    assert set(found) == set(expected)
    assert max(float((found[name] - expected[name]).abs().max()) for name in expected) < 1e-6
