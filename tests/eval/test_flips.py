"""The command that asks whether rewards follow the image, with a scorer that looks and one that does not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from eval import flips
from eval.step_scores.config import FlipsConfig
from eval.step_scores.flips import measured
from vlprm.errors import ProblemError
from vlprm.runs.journal import read_records
from vlprm.schema import Problem, Step, StepScore
from vlprm.scoring import Scored
from vlprm.serving.config import ModelConfig
from vlprm.tasks import TASKS


class Reader:
    """Rewards a step by its truth on the problem's scene; without an image, or if it does not look, all alike."""

    def __init__(self, looks: bool = True) -> None:
        self.looks = looks

    async def score(self, problem: Problem, solutions: Sequence[Sequence[Step]], attempt: Hashable = None) -> Scored:
        if problem.id.endswith("000001"):
            raise ProblemError("image_missing", "there is no image")
        rewards = [[self._reward(problem, v) for v in TASKS[problem.task].verdicts(problem, s)] for s in solutions]
        return Scored([[StepScore(r, None, None) for r in row] for row in rewards], [0] * len(solutions))

    def _reward(self, problem: Problem, verdict: Any) -> float:
        return 0.9 if self.looks and problem.images and verdict and verdict.correct else 0.4

    def forget(self, problem: Problem, attempt: Hashable = None) -> None:
        pass


def results_of(run: Path, scorer: Reader, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> dict[str, Any]:
    @asynccontextmanager
    async def opened(*_: object) -> AsyncIterator[Reader]:
        yield scorer

    monkeypatch.setattr(flips, "open_scorer", opened)
    model = ModelConfig("builtin/policy", device="cpu")
    flips.main(FlipsConfig(run, (model,), **{"tasks": ("count_grid", "chart"), "problems": 6, "unit": 4, **fields}))
    found: dict[str, Any] = json.loads((run / "results.json").read_text())
    return found


def test_who_looks_is_told_from_who_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = results_of(tmp_path / "looks", Reader(), monkeypatch)
    everything = looks["groups"]["all"]
    assert everything["flip"]["value"] == everything["both_at_threshold"]["value"] == 1
    assert everything["premise"]["value"] == everything["removed"]["value"] == 1
    assert everything["drop"]["value"] == pytest.approx(0.5)
    assert looks["no_result"]["image_missing"] >= 2  # the second item of each family
    (first, *_), *_ = (record["pairs"] for record in read_records(tmp_path / "looks/records.jsonl"))
    assert first["boxes"][0].keys() == {"x0", "y0", "x1", "y1", "image"}
    assert first["steps"][-1].startswith(f"[{first['kind']}]")
    assert everything["pairs"] == sum(looks["groups"][task]["pairs"] for task in ("count_grid", "chart"))
    assert "does the reward follow the image" in capsys.readouterr().out.lower()
    blind = results_of(tmp_path / "blind", Reader(looks=False), monkeypatch)["groups"]["all"]
    assert [blind[name]["value"] for name in ("flip", "premise", "removed", "swapped")] == [0.5] * 4
    assert blind["both_at_threshold"]["value"] == 0
    assert blind["drop"]["value"] == 0


def test_a_run_goes_on_and_pairs_of_a_problem_count_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = results_of(tmp_path / "run", Reader(), monkeypatch)
    monkeypatch.setattr(flips, "_score", None)  # nothing is left to score
    assert results_of(tmp_path / "run", Reader(), monkeypatch) == first
    pair = {"problem": "a", "task": "t", "kind": "perception", "no_result": "", "rewards": {"right": 0.6, "flip": 0.2}}
    others = [{**pair, "problem": "b", "rewards": {"right": 0.2, "flip": 0.6}}, {**pair, "no_result": "no_score"}]
    found = measured([pair, pair, *others])
    assert found["no_result"] == {"no_score": 1}
    flip = found["groups"]["perception"]["flip"]
    assert (flip["value"], flip["of"], flip["ci"]) == (pytest.approx(2 / 3), 3, [0, 1])
    assert "swapped" not in found["groups"]["all"]


def test_mistakes_are_named(tmp_path: Path) -> None:
    model = ModelConfig("builtin/policy", device="cpu")
    config = FlipsConfig(tmp_path / "run", (model,), tasks=("docs.examples.dominoes",))
    with pytest.raises(ValueError, match="dominoes lists no changes of its scenes; pass other tasks"):
        flips.main(config)
    with pytest.raises(ValueError, match="reward_model is empty"):
        flips.main(dataclasses.replace(config, reward_model=()))
    assert not (tmp_path / "run").exists()
