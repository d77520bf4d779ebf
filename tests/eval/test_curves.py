"""Curves of a report: the exact vote and oracle against brute force, calibration, and what a training run left."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest

from eval import report
from eval.runs import curves
from eval.runs.pools import Pool
from tests.perf.pools import scores_of, solutions_of
from tests.stored import pool_record, write_run
from vlprm.schema import StepScore, Verdict
from vlprm.search.select import Candidate, majority
from vlprm.tasks import TASKS


def pool(answers: str, right: str) -> Pool:
    """A candidate for each letter; `-` is no answer, and the letters of `right` are right."""
    candidates = tuple(Candidate(None if a == "-" else a, (0.5,), None) for a in answers)
    return Pool("b", "p", "t", candidates, tuple(None if a == "-" else a in right for a in answers))


@pytest.mark.parametrize(
    ("answers", "right"), [("aabbc", "a"), ("abcd", "bd"), ("aab-b--", "b"), ("---", ""), ("aaaabbb", "b")]
)
def test_the_vote_and_the_oracle_are_means_over_all_subsets(answers: str, right: str) -> None:
    whole = pool(answers, right)
    voters = [i for i, c in enumerate(whole.candidates) if c.answer is not None] or list(range(len(answers)))
    for n, vote in curves.vote_curve(whole).items():
        subsets = list(itertools.combinations(voters, min(n, len(voters))))
        shares = [majority([whole.candidates[i] for i in subset]) for subset in subsets]
        expected = [
            np.dot(share, [whole.values[i] for i in subset]) for share, subset in zip(shares, subsets, strict=True)
        ]
        assert vote == pytest.approx(np.mean(expected)), n
        found = [max(whole.values[i] for i in subset) for subset in subsets]
        assert curves.oracle_curve(whole)[n] == pytest.approx(np.mean(found)), n


def test_a_curve_ends_at_the_row_of_its_selector_and_has_its_interval() -> None:
    found = curves.accuracy_curves([pool("aab", "a"), pool("abb", "a"), pool("aaa", "b")], "min", scored=True)
    assert list(found) == ["prm_min", "majority", "oracle"]
    assert found["majority"]["3"]["accuracy"] == pytest.approx(1 / 3)
    row = found["oracle"]["3"]
    assert row["accuracy"] == pytest.approx(2 / 3)
    assert row["ci"][0] <= row["accuracy"] <= row["ci"][1]
    assert list(curves.accuracy_curves([pool("ab" * 20, "a")], "min", scored=False)) == ["oracle"]
    assert curves.accuracy_curves([], "min", scored=True) == {}


def test_reliability_has_the_mean_reward_and_the_share_of_right_steps() -> None:
    scores = ((StepScore(0.12, 0, 0), StepScore(0.18, 0, 0), StepScore(1.0, 0, 0), None),)
    truth = ((Verdict(True, None), Verdict(False, "reasoning"), Verdict(True, None), Verdict(True, None)),)
    known = Pool("b", "p", "t", (Candidate("a", None, None),), (True,), scores=scores, truth=truth)
    first, last = curves.reliability([known])
    assert (first, last) == (pytest.approx([0.15, 0.5, 2]), pytest.approx([1.0, 1.0, 1]))


def test_the_course_of_training_is_read_as_far_as_it_is_there(tmp_path: Path) -> None:
    assert curves.training_of(tmp_path) == {}
    lines = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "eval_loss": 1.5, "eval_step_auroc": 0.8, "eval_runtime": 3.2},
        {"step": 2, "train_loss": 1},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "lo')
    found = curves.training_of(tmp_path)
    assert found == {"loss": [[1, 2.0]], "held_out": [[2, 1.5]], "last": {"eval_loss": 1.5, "eval_step_auroc": 0.8}}
    (tmp_path / "curves.json").write_text(
        json.dumps({"loss": [[1, 3.0]], "held_out": [], "reliability": [[0.1, 0.2, 5]]})
    )
    assert curves.training_of(tmp_path) == {**found, "loss": [[1, 3.0]], "reliability": [[0.1, 0.2, 5]]}


def test_the_page_of_a_run_of_eval_run_alone_says_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training's curves are those of the checkpoint that the run was given."""
    monkeypatch.chdir(tmp_path)
    rng = random.Random(0)
    problems = [TASKS["count_grid"].problem("test", i) for i in range(4)]
    pools = [solutions_of(problem, 4, rng) for problem in problems]
    scores = [[scores_of(len(s.steps), rng) for s in pool] for pool in pools]
    records = [pool_record(i, p, pools[i], scores[i]) for i, p in enumerate(problems)]
    write_run(tmp_path / "alone", records)
    (tmp_path / "prm").mkdir()
    (tmp_path / "prm" / "metrics.jsonl").write_text('{"step": 20, "loss": 0.5}\n{"step": 40, "loss": 0.4}\n')
    report.main(report.ReportConfig(tmp_path / "alone"))
    page = (tmp_path / "alone" / "report.html").read_text()
    results = json.loads((tmp_path / "alone" / "results.json").read_text())
    apart = results["differences"]["prm_min - random"]["accuracy"]
    assert f"{abs(100 * apart):.1f} points</h2>" in page
    assert 'id="curve"' in page
    assert 'id="loss"' in page
    assert "training" not in results, "it would differ after a resumed training"
