"""Labels from several sources: how far their mistakes depend on each other, and what each is worth."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from vlprm.labels import judge_reliability
from vlprm.labels.dependence import dependence_of, exponents
from vlprm.labels.fusion import RULES, fuse_tree
from vlprm.labels.judge_reliability import TreeEvidence, estimate_reliability, posterior_correct
from vlprm.labels.sources import Reliability, SourceReliability, declared, rate_text
from vlprm.schema import ErrorKind, StepLabel, Verdict


@pytest.fixture(autouse=True)
def no_intervals(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals take most of the time of an estimate."""
    if "gold" not in request.node.name:
        monkeypatch.setattr(judge_reliability, "RESAMPLES", 2)


KINDS: tuple[ErrorKind, ...] = ("perception", "perception", "reasoning", "reasoning")
Says = Callable[[ErrorKind | None, random.Random], Verdict | None]


def judge(accuracy: float) -> Says:
    def says(truth: ErrorKind | None, rng: random.Random) -> Verdict:
        right = rng.random() < accuracy
        return Verdict(True) if (truth is None) == right else Verdict(False, truth or "perception")

    return says


def checker(truth: ErrorKind | None, rng: random.Random) -> Verdict | None:
    """Exact about half of what is not a perception error, and silent about the rest."""
    if truth == "perception" or rng.random() < 0.5:
        return None
    return Verdict(truth is None, truth)


def world(sources: dict[str, Says], trees: int = 150, seed: int = 1) -> list[tuple[TreeEvidence, list[bool]]]:
    """Trees of four steps after a prompt that is solved in 60%; 3 in 10 steps are wrong, some harmlessly."""
    made = []
    for tree in range(trees):
        labels, rights = [], []
        for step, kind in enumerate(KINDS):
            rng = random.Random(f"{seed} {tree} {step}")
            wrong = rng.random() < 0.3
            spoilt = wrong and rng.random() < 0.6
            counts = sum(rng.random() < (0.02 if spoilt else 0.6) for _ in range(8))
            heard = {
                n: says(kind if wrong else None, random.Random(f"{seed} {tree} {step} {n}"))
                for n, says in sources.items()
            }
            labels += [StepLabel(counts, 8, 8, {n: v for n, v in heard.items() if v}), StepLabel(1, 1, 1)]
            rights += [not wrong, True]
        kinds = [kind for step in KINDS for kind in (step, "answer")]
        parents = [p for step in range(len(KINDS)) for p in (-1, 2 * step)]
        made.append((TreeEvidence(labels, kinds, parents, StepLabel(10, 16, 16)), rights))  # type: ignore[arg-type]
    return made


def without(tree: TreeEvidence, name: str) -> TreeEvidence:
    """The evidence without a source."""
    labels = [replace(la, votes={n: v for n, v in la.votes.items() if n != name}) for la in tree.labels]
    return replace(tree, labels=labels)


def brier(made: list[tuple[TreeEvidence, list[bool]]], quality: Reliability) -> float:
    squares = [
        (value - right) ** 2
        for tree, rights in made
        for value, right, kind in zip(posterior_correct(tree, quality), rights, tree.kinds, strict=True)
        if kind != "answer" and value is not None
    ]
    return float(np.mean(squares))


def test_independent_sources_add_up_and_a_copy_adds_nothing() -> None:
    made = world({"a": judge(0.8), "b": judge(0.8), "c": judge(0.8)})
    trees = [tree for tree, _ in made]
    all_three = estimate_reliability(trees)
    one = [(without(without(tree, "b"), "c"), rights) for tree, rights in made]
    alone = estimate_reliability([tree for tree, _ in one])
    assert max(abs(rho) for rho in all_three.sources["a"].dependence.values()) < 0.35
    assert all(low < 0.2 and low < high < 0.7 for low, high in all_three.sources["a"].dependence_intervals.values())
    assert brier(made, all_three) < 0.75 * brier(one, alone)


def test_a_partial_copy_is_found() -> None:
    made = []
    for number, (tree, rights) in enumerate(world({"a": judge(0.75), "own": judge(0.75)})):
        labels = []
        for node, label in enumerate(tree.labels):
            votes = dict(label.votes)
            if own := votes.pop("own", None):
                votes["b"] = votes["a"] if random.Random(f"{number} {node}").random() < 0.7 else own
            labels.append(replace(label, votes=votes))
        made.append((replace(tree, labels=labels), rights))
    quality = estimate_reliability([tree for tree, _ in made])
    rho = quality.sources["a"].dependence["b"]
    assert 0.45 < rho < 0.95
    low, high = quality.sources["a"].dependence_intervals["b"]
    assert 0.2 < low < rho < high < 1, "the interval does not reach independence"


def test_a_silent_source_changes_nothing_and_a_rare_one_costs_nothing_where_it_is_silent() -> None:
    made = world({"a": judge(0.85), "rare": lambda truth, rng: Verdict(True) if rng.random() < 0.02 else None}, 120)
    trees = [tree for tree, _ in made]
    both, alone = estimate_reliability(trees), estimate_reliability([without(tree, "rare") for tree in trees])
    for tree in trees:
        if not any("rare" in label.votes for label in tree.labels):
            pairs = zip(posterior_correct(tree, both), posterior_correct(tree, alone), strict=True)
            assert all(abs((x or 0) - (y or 0)) < 0.02 for x, y in pairs)
    assert rate_text(both.sources["rare"], "sensitivity/action") == "not known"


def test_a_source_that_is_mostly_wrong_is_read_the_other_way_round() -> None:
    made = world({"a": judge(0.8), "liar": judge(0.25)})
    quality = estimate_reliability([tree for tree, _ in made])
    one = [(without(tree, "liar"), rights) for tree, rights in made]
    assert brier(made, quality) < brier(one, estimate_reliability([tree for tree, _ in one])) + 0.005


def test_declared_rates_are_kept_and_their_alarms_are_anchors() -> None:
    exact = declared(0.999, 0.999, local=True)
    made = world({"judge": judge(0.8), "check": checker})
    trees = [tree for tree, _ in made]
    quality = estimate_reliability(trees, {"check": exact})
    assert quality.sources["check"] == exact
    assert quality.sources["judge"].dependence == {"check": 0.0}
    fewer = estimate_reliability([without(tree, "check") for tree in trees]).sources["judge"]
    assert quality.sources["judge"].anchors["sensitivity/reasoning"] > fewer.anchors["sensitivity/reasoning"]
    assert brier(made, quality) < brier([(without(t, "check"), r) for t, r in made], quality)
    assert rate_text(exact, "specificity") == "0.999 (declared)"


def test_after_an_error_an_exact_checker_tells_nothing() -> None:
    """It passes a step that follows from a wrong one."""
    wrong, passed = Verdict(False, "reasoning"), Verdict(True)
    chain = [StepLabel(0, 8, 8, {"judge": wrong}), StepLabel(0, 8, 8, {"judge": wrong, "check": passed})]
    evidence = TreeEvidence(chain, ["reasoning"] * 2, [-1, 0], StepLabel(12, 16, 16))
    quality = Reliability({"check": declared(0.999, 0.999, local=True), "judge": SourceReliability()})
    silent = replace(evidence, labels=[chain[0], replace(chain[1], votes={"judge": wrong})])
    spoilt, heard = posterior_correct(silent, quality)[1], posterior_correct(evidence, quality)[1]
    assert spoilt is not None
    assert heard == pytest.approx(spoilt, abs=0.02)


def test_gold_labels_add_to_what_is_known() -> None:
    made = world({"a": judge(0.8)}, 40)
    trees = [tree for tree, _ in made]
    gold = [
        replace(
            tree,
            gold={n: Verdict(right, None if right else "reasoning") for n, right in enumerate(rights) if n % 2 == 0},
        )
        for tree, rights in made
    ]
    bare, helped = (estimate_reliability(of).sources["a"] for of in (trees, gold))
    for rate in ("specificity", "sensitivity/reasoning"):
        assert helped.anchors[rate] > bare.anchors[rate]
        low, high = helped.intervals[rate]
        assert high - low < 0.3


@pytest.mark.parametrize(("given", "exponent"), [(0.0, 1.0), (1.0, 0.5), (-0.4, 1.0), (0.5, 2 / 3)])
def test_the_exponent_counts_only_sources_that_spoke(given: float, exponent: float) -> None:
    rho = np.array([[0.0, given], [given, 0.0]])
    weights = exponents(np.array([[True, True], [True, False]]), rho)
    assert weights[0] == pytest.approx([exponent] * 2)
    assert weights[1, 0] == 1.0


def test_sources_are_dependent_until_shown_otherwise() -> None:
    few = np.array([[0, 1], [1, 0]])
    assert dependence_of(few, np.array([True, True]), [True, True])[0, 1] == 0.5
    assert dependence_of(few, np.array([True, True]), [True, False])[0, 1] == 0.0


@pytest.mark.parametrize("rule", RULES)
def test_a_step_that_is_called_right_never_has_an_error_and_the_other_way_round(rule: str) -> None:
    """A wrong target goes with the first vote that alarms, a right one with none, whatever others said."""
    yes, perception, reasoning = Verdict(True), Verdict(False, "perception"), Verdict(False, "reasoning")
    votes = [{"a": yes, "b": perception, "c": reasoning}, {"a": reasoning, "b": yes}, {"a": yes}, {}]
    for correct in range(9):
        evidence = TreeEvidence(
            [StepLabel(correct, 8, 8, v) for v in votes], ["reasoning"] * 4, [-1, 0, 1, 2], StepLabel(6, 12, 12)
        )
        for label in fuse_tree(evidence, [([0, 1, 2, 3], correct > 4)], rule, Reliability()):  # type: ignore[arg-type]
            assert label.error_kind is None or (label.target is not None and label.target < 0.8)
            alarm = label.said(correct=False)
            assert label.error_kind in (None, alarm and alarm.error_kind)
