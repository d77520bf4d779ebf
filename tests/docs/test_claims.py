"""docs/claims.md says what its records say, and `make claims` goes on after a kill."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT
from tests.perf.claims import __main__ as claims
from tests.perf.claims.document import document, page
from tests.perf.claims.table import CLAIMS, verdict
from tests.perf.datasets import turned
from tests.perf.results import Effect


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [(0.1, 9.0, "holds"), (-3.0, 0.9, "does not hold"), (-3.0, -1.0, "does not hold"), (-0.1, 2.0, "not decided here")],
)
def test_a_verdict_reads_the_interval(low: float, high: float, says: str) -> None:
    assert verdict(Effect((low + high) / 2, low, high, "points", 500)) == says


def test_the_document_is_written_from_the_records() -> None:
    assert claims.DOCUMENT.read_text() == document(claims.effects(claims.stored()))


ON_THE_README = (
    "label_curve/reward model less likeliest", "label_curve/reward model less majority",
    "label_schemes/fused less counts, self", "label_schemes/steps less outcomes, self",
    "policy_learning/count_grid, PRM alone: right over outcome",
    "vote/stranger less likelihood", "vote/self less likelihood", "vote/stranger less vote", "vote/self less vote",
    "vote/stranger less vote at equal FLOPs", "tts/greedy less best of n", "tts/step beam less best of n",
)  # fmt: skip


def test_the_readme_has_the_numbers_of_the_records() -> None:
    text, effects = (ROOT / "README.md").read_text(), claims.stored()["effects"]
    for key in ON_THE_README:
        found = effects[key]
        assert f"{found['value']:.1f}" in text, key
        assert f"{found['low']:.1f} to {found['high']:.1f}" in text, key


def test_each_effect_is_claimed_once() -> None:
    keys = [claims.key_of(claim) for claim in CLAIMS]
    assert len(set(keys)) == len(keys)
    assert set(claims.stored()["effects"]) <= set(keys), "records of claims that are gone"


def test_a_finished_bench_is_read_and_a_missing_one_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["claims"])
    one, other = CLAIMS[0], next(claim for claim in CLAIMS if claim.bench != CLAIMS[0].bench)
    monkeypatch.setattr(claims, "CLAIMS", (one, other))
    for claim, low in ((one, 1.0), (other, -2.0)):
        effect = {"value": 1.5, "low": low, "high": 2.5, "unit": "points", "problems": 500, "seeds": 3}
        path = tmp_path / "made" / f"{claim.bench}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"effects": {claim.effect: effect}}))
    (tmp_path / "docs").mkdir()
    Path("runs/bench").mkdir(parents=True)
    (tmp_path / "made" / f"{one.bench}.json").rename(f"runs/bench/{one.bench}.json")
    ran: list[str] = []

    def run(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        ran.append(command[-1])
        if len(ran) == 1:  # killed at the first try
            return subprocess.CompletedProcess(command, 1)
        (tmp_path / "made" / f"{other.bench}.json").rename(f"runs/bench/{other.bench}.json")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(SystemExit, match=other.bench):
        claims.main()
    assert list(claims.stored()["effects"]) == [claims.key_of(one)]
    claims.main()
    assert ran == [f"tests.perf.{other.bench}"] * 2
    text = claims.DOCUMENT.read_text()
    assert "| +1.5 points | +1.0 to +2.5 | 500 | 3 | holds |" in text
    assert "| +1.5 points | -2.0 to +2.5 | 500 | 3 | not decided here |" in text


def test_no_bench_waits_before_one_that_could_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def run(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        ran.append(command[-1].removeprefix("tests.perf."))
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", run)
    assert set(claims.measured(1)) == set(ran) == {claim.bench for claim in CLAIMS}
    assert set(ran[-len(claims.AFTER) :]) == set(claims.AFTER)


@pytest.mark.parametrize(("of", "labels"), [("answers", [1.0, 0.25, 1.0]), ("steps", [0.0, 0.75, 0.0])])
def test_wrong_labels_are_those_of_answers_or_of_all_other_steps(of: str, labels: list[float]) -> None:
    leaves = [{"node": 1, "answer": "3", "right": True}]
    row = {"id": "a", "labels": [1.0, 0.75, 1.0], "error_kinds": [None, None, None], "leaves": leaves}
    assert turned(row, of, 1.0)["labels"] == labels
    assert turned(row, of, 0.0) == row


def test_the_page_draws_each_effect() -> None:
    html = page({claim: Effect(1.5, 1.0, 2.5, "points", 500) for claim in CLAIMS}, {})
    assert html.count('class="effect"') == len(CLAIMS)
    assert "+1.5 (+1.0 to +2.5)" in html


def test_the_page_draws_a_curve_of_each_selector_by_the_number_of_labels() -> None:
    def curve(low: float, high: float) -> dict[str, dict[str, Any]]:
        return {str(n): {"accuracy": x, "ci": [x - 0.05, x + 0.05]} for n, x in ((100, low), (10_000, high))}

    html = page({}, {"text layers": {"prm_min": curve(0.55, 0.75), "majority": curve(0.58, 0.58)}})
    assert "What step labels are worth: text layers" in html
    assert "best of N by step rewards: min, n = 10000: 75.0% (70.0 to 80.0)" in html
    assert html.count("<polyline") == 2
