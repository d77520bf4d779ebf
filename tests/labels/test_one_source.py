"""With one judge, labels are those of the code that knew a single judge (tests/fixtures/one_judge.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vlprm.labels.fusion import fuse_tree
from vlprm.labels.judge_reliability import TreeEvidence, estimate_reliability
from vlprm.schema import StepLabel, Verdict

FROZEN = json.loads((Path(__file__).parents[1] / "fixtures/one_judge.json").read_text())


def label(counts: list[int], said: str | None, source: str) -> StepLabel:
    correct, valid, total, passed_correct, passed_valid = counts
    vote = {} if said is None else {source: Verdict(said == "correct", None if said == "correct" else said)}  # type: ignore[arg-type]
    return StepLabel(correct, valid, total, vote, passed_correct=passed_correct, passed_valid=passed_valid)


def evidence(tree: dict[str, Any], *sources: str) -> TreeEvidence:
    labels = []
    for counts, said in zip(tree["counts"], tree["said"], strict=True):
        votes = {name: vote for source in sources for name, vote in label(counts, said, source).votes.items()}
        labels.append(StepLabel(**{**vars(label(counts, None, "")), "votes": votes}))
    return TreeEvidence(labels, tree["kinds"], tree["parents"], label(tree["root"], None, ""))


def test_the_estimate_and_all_targets_are_those_of_before() -> None:
    trees = [evidence(tree, "judge") for tree in FROZEN["trees"]]
    quality = estimate_reliability(trees)
    judge, before = quality.sources["judge"], FROZEN["quality"]
    assert judge.anchors == before["anchors"]
    for name, interval in before["intervals"].items():
        assert judge.intervals[name] == pytest.approx(interval, rel=1e-12), name
    assert [list(row) for row in judge.says] == [pytest.approx(row, rel=1e-12) for row in before["says"]]
    for kind, shares in before["states"].items():
        assert quality.states[kind] == pytest.approx(shares, rel=1e-12)
        assert quality.carried[kind] == pytest.approx(before["carried"][kind], rel=1e-12)
    for tree, seen in zip(FROZEN["trees"], trees, strict=True):
        for rule, targets in tree["targets"].items():
            fused = fuse_tree(seen, tree["paths"], rule, quality)
            for step, target in zip(fused, targets, strict=True):
                assert step.target == (None if target is None else pytest.approx(target, rel=1e-12, abs=1e-300)), rule
            if rule == "bayes":
                assert [step.error_kind for step in fused] == tree["error_kinds"]


def test_a_source_that_is_given_twice_counts_once() -> None:
    once, twice = ([evidence(tree, *names) for tree in FROZEN["trees"]] for names in (("a",), ("a", "b")))
    alone, both = estimate_reliability(once), estimate_reliability(twice)
    assert both.sources["a"].dependence == {"b": 1.0}
    for tree, one, two in zip(FROZEN["trees"], once, twice, strict=True):
        targets = [[s.target for s in fuse_tree(e, tree["paths"], "bayes", q)] for e, q in ((one, alone), (two, both))]
        assert targets[1] == [None if t is None else pytest.approx(t, abs=1e-9) for t in targets[0]]
