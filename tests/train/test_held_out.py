"""Metrics of held-out steps while a reward model is trained."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from transformers import EvalPrediction

from train.reward.curves import auroc_with_interval
from train.reward.losses import IGNORE
from train.reward.trainer import HeldOutSteps, held_out_metrics, held_out_steps
from vlprm.metrics import reliability

Step = tuple[float, float, int, bool]


def predicted(steps: list[Step], value: float | None = None, counts: tuple[int, int] = (0, 0)) -> EvalPrediction:
    """The prediction of one row of steps, each with its reward, target, error kind (1: perception, 2: reasoning) and
    whether it is called wrong; all with the same value and counts. The row is padded with values that must not
    count."""
    logits: list[list[float]] = [[math.log(p), math.log((1 - p) / 2), math.log((1 - p) / 2)] for p, *_ in steps]
    columns: list[Any] = [[step[k] for step in steps] for k in (1, 2, 3)]
    padded = [np.array([[*column, pad]]) for column, pad in zip(columns, (IGNORE, -1, IGNORE), strict=True)]
    labels = (*padded, np.array([[*[counts] * len(steps), (7, 8)]]))
    classes = np.array([[*logits, [50.0, 0.0, 0.0]]])
    if value is None:
        return EvalPrediction(classes, labels)
    return EvalPrediction((classes, np.array([[*[math.log(value / (1 - value))] * len(steps), 50.0]])), labels)


def measured(steps: list[Step]) -> dict[str, float]:
    return held_out_metrics(predicted(steps))


def test_held_out_metrics_are_those_of_a_hand_made_row() -> None:
    found = measured([
        (0.92, 1.0, -1, False),
        (0.94, 0.0, 1, True),  # missed
        (0.32, 0.0, 1, True),
        (0.38, 0.0, 2, True),
        (0.45, 1.0, -1, False),  # a false alarm
    ])  # fmt: skip
    assert found["step_accuracy"] == pytest.approx(3 / 5)
    assert found["step_auroc"] == pytest.approx(4 / 6)
    brier = (0.08**2 + 0.94**2 + 0.32**2 + 0.38**2 + 0.55**2) / 5
    assert found["step_brier"] == pytest.approx(brier, abs=1e-6)
    # Bins of a tenth: 0.92 and 0.94 against 1 and 0; 0.32 and 0.38 against 0; 0.45 against 1.
    assert found["step_ece"] == pytest.approx((0.86 + 0.70 + 0.55) / 5, abs=1e-6)
    assert (found["found_perception"], found["found_reasoning"]) == (0.5, 1.0)


def test_a_value_is_measured_against_the_share_of_right_rollouts() -> None:
    steps: list[Step] = [(0.9, 1.0, -1, False), (0.4, 0.0, -1, True)]
    assert held_out_metrics(predicted(steps, 0.8, (2, 4)))["value_brier"] == pytest.approx(0.3**2, abs=1e-6)
    assert "value_brier" not in held_out_metrics(predicted(steps, 0.8))
    assert "value_brier" not in measured(steps)


def test_what_is_called_wrong_is_what_the_labels_rule_says() -> None:
    """With Monte Carlo values, one right rollout of four makes a step right."""
    found = measured([(0.7, 0.25, -1, False), (0.2, 0.0, -1, True)])
    assert (found["step_auroc"], found["step_accuracy"]) == (1.0, 1.0)
    assert not [name for name in found if name.startswith("found")]


def test_the_reliability_of_a_tenth_is_its_mean_target_with_a_count() -> None:
    shown = predicted([(0.92, 1.0, -1, False), (0.94, 0.0, 1, True), (0.32, 0.5, 1, False)])
    steps = held_out_steps(shown)
    first, second = reliability(steps.rewards, steps.targets)
    assert first == pytest.approx([0.32, 0.5, 1], abs=1e-6)
    assert second == pytest.approx([0.93, 0.5, 2], abs=1e-6)


def test_the_interval_of_an_auroc_is_over_problems() -> None:
    """The steps of a problem are drawn together; a single problem says nothing about others."""
    n = 40
    rewards, right = np.tile([0.9, 0.1, 0.2, 0.8], n), np.tile([True, False, False, False], n)
    steps = HeldOutSteps(rewards, right.astype(float), right, np.full(4 * n, -1), np.repeat(np.arange(n), 4))
    many = auroc_with_interval(steps, [f"p{k}" for k in range(n)])
    assert many == {"value": 1.0, "ci": [1.0, 1.0], "steps": 160, "wrong": 120, "problems": 40}
    assert auroc_with_interval(steps, ["p"] * n)["ci"] is None
    half = np.arange(4 * n) < 2 * n  # half of the problems are ranked the wrong way round
    low, high = auroc_with_interval(replace(steps, rewards=np.where(half, rewards, -rewards)), [*map(str, range(n))])[
        "ci"
    ]
    assert 0.05 < high - low < 0.6
    assert auroc_with_interval(replace(steps, right=np.full(4 * n, True)), [*map(str, range(n))])["value"] is None
