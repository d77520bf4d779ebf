"""The value of a step and its standard deviation, in the reward."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.conftest import solved
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.schema import Problem, StepScore
from vlprm.scoring.aggregate import aggregated
from vlprm.scoring.config import ScorerConfig
from vlprm.scoring.open import open_scorer
from vlprm.serving.config import ModelConfig


@pytest.fixture(scope="module")
def folder(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model with a value and a concentration, and with random weights in its head."""
    made = load_reward_model(backbone, new_head="step", extra_outputs=("value", "concentration"))
    torch.nn.init.normal_(made.model.score.weight, std=0.2, generator=torch.Generator().manual_seed(0))
    folder = tmp_path_factory.mktemp("valued")
    save_reward_model(made, folder, made.config)
    return folder


def scored(folder: Path | str, problem: Problem, *models: str, **fields: object) -> list[StepScore]:
    async def ask() -> list[StepScore | None]:
        config = ScorerConfig(**fields)  # type: ignore[arg-type]
        async with open_scorer([ModelConfig(str(folder)), *map(ModelConfig, models)], config) as scorer:
            return (await scorer.score(problem, [solved(problem)])).steps[0]

    found = [score for score in asyncio.run(ask()) if score is not None]
    assert len(found) == len(solved(problem))
    return found


def test_the_value_weighs_as_much_as_the_config_says(folder: Path, problems: list[Problem]) -> None:
    """Without a weight, the rewards are those of a model's first three outputs, to the bit."""
    plain = scored(folder, problems[0])
    assert len({score.value for score in plain}) == len(plain)
    assert scored(folder, problems[0], value=0.0) == plain
    for weight in (0.25, 1.0):
        for score, own in zip(scored(folder, problems[0], value=weight), plain, strict=True):
            assert own.value is not None
            assert own.sd is not None
            mixed, sd = (1 - weight) * own.correct + weight * own.value, pytest.approx(weight * own.sd)
            assert score == replace(own, correct=pytest.approx(mixed, abs=1e-9), sd=sd)
    whole = scored(folder, problems[0], kind="whole", value=1.0)
    assert [score.correct for score in whole] == [score.value for score in whole]


def test_risk_lowers_a_reward_by_standard_deviations(folder: Path, problems: list[Problem]) -> None:
    """Without risk, the reward is the mean; the standard deviations are those of Beta distributions and differ."""
    mean = scored(folder, problems[0], value=1.0)
    assert scored(folder, problems[0], value=1.0, risk=0.0) == mean
    assert len({score.sd for score in mean}) == len(mean)
    for score, own in zip(scored(folder, problems[0], value=1.0, risk=0.5), mean, strict=True):
        assert own.sd is not None
        assert 0 < own.sd < (own.correct * (1 - own.correct)) ** 0.5
        assert score.correct == pytest.approx(own.correct - 0.5 * own.sd)
    with pytest.raises(ValueError, match=r"is that of the value, which has no weight; set scorer.value to 1"):
        scored(folder, problems[0], risk=0.5)
    assert [aggregated([-0.2, -0.1, 0.5], rule) for rule in ("min", "product", "mean_odds")] == [-0.2, 0.0, 1 / 3]


def test_an_ensemble_has_the_mean_value(folder: Path, problems: list[Problem]) -> None:
    (one, *_), (two, *_) = scored(folder, problems[0]), scored(folder, problems[0], str(folder))
    assert (two.value, two.sd) == (pytest.approx(one.value), pytest.approx(one.sd))


def test_a_value_that_is_not_there_is_refused(
    folder: Path, backbone: Path, tmp_path: Path, problems: list[Problem]
) -> None:
    plain = load_reward_model(backbone, new_head="step")
    save_reward_model(plain, tmp_path / "plain", plain.config)
    with pytest.raises(ValueError, match=r"plain gives no value; set scorer.value to 0, or train it with loss"):
        scored(tmp_path / "plain", problems[0], value=0.5)
    with pytest.raises(ValueError, match=r"plain gives no standard deviation; set scorer.risk to 0, or train it with"):
        scored(tmp_path / "plain", problems[0], risk=0.5)
    with pytest.raises(ValueError, match=r"scorer.kind likelihood gives no value and no standard deviation; leave out"):
        scored(folder, problems[0], kind="likelihood", value=0.5)
