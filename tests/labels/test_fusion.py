"""The fusion rules, the estimated rates of a judge, and corrections mined from siblings."""

from __future__ import annotations

import dataclasses
import random

import pytest

from vlprm.labels.fusion import RULES, fuse_tree, mined_corrections, rule_calls_wrong
from vlprm.labels.judge_reliability import (
    TreeEvidence,
    estimate_reliability,
    posterior_correct,
)
from vlprm.labels.sources import VERDICTS, Reliability
from vlprm.schema import StepLabel, Verdict

YES, NO = {"judge": Verdict(True)}, {"judge": Verdict(False, "perception")}
HALF = StepLabel(8, 16, 16)


def chain(*labels: StepLabel, root: StepLabel = HALF) -> TreeEvidence:
    return TreeEvidence(labels, ["reasoning"] * len(labels), range(-1, len(labels) - 1), root)


def posterior(correct: int, valid: int, votes: dict[str, Verdict], root: StepLabel = HALF) -> float:
    (value,) = posterior_correct(chain(StepLabel(correct, valid, valid, votes), root=root), Reliability())
    assert value is not None
    return value


def test_bayes_weighs_the_counts_against_the_judge() -> None:
    assert posterior(6, 8, YES) > 0.9
    assert posterior(6, 8, NO) < 0.5  # a harmless error looks like this, and so does a false alarm
    assert posterior(0, 8, NO) < 0.01
    assert posterior(0, 2, YES) > posterior(0, 8, YES) > posterior(0, 32, YES)
    assert posterior_correct(chain(StepLabel()), Reliability()) == [None]


def test_counts_are_read_against_the_parents() -> None:
    """No right rollout of eight is strong evidence after a prefix that is nearly always solved, weaker after one that
    seldom is, and none after one that never is."""
    often, seldom, never = StepLabel(15, 16, 16), StepLabel(2, 16, 16), StepLabel(0, 16, 16)
    assert posterior(0, 8, YES, often) < posterior(0, 8, YES, seldom) < posterior(0, 8, YES, never)
    assert posterior(0, 8, YES, never) == posterior(0, 0, YES, never)


@pytest.mark.parametrize(
    ("label", "consensus", "hybrid"),
    [
        (StepLabel(3, 4, 4, YES), 1.0, 0.75),
        (StepLabel(0, 4, 4, YES), None, 0.0),  # they disagree
        (StepLabel(2, 2, 2, YES), None, 1.0),  # too few rollouts to agree with
        (StepLabel(4, 4, 4, NO), 0.0, 0.0),
        (StepLabel(3, 4, 4), None, 0.75),
        (StepLabel(1, 1, 1), None, None),
    ],
)
def test_consensus_keeps_agreement_and_hybrid_bounds_the_value(
    label: StepLabel, consensus: float | None, hybrid: float | None
) -> None:
    assert RULES["consensus"](chain(label), Reliability()) == [consensus]
    assert RULES["hybrid"](chain(label), Reliability()) == [hybrid]


def test_every_step_has_its_own_label_and_the_last_that_of_the_answer() -> None:
    evidence = chain(StepLabel(5, 8, 8, YES), StepLabel(0, 8, 8, NO), StepLabel(0, 4, 4, YES), StepLabel(0, 1, 1, NO))
    path = [([0, 1, 2, 3], False)]
    fused = fuse_tree(evidence, path, "bayes", Reliability())
    assert [None if t.target is None else round(t.target, 1) for t in fused] == [1.0, 0.0, 0.8, 0.0]
    assert [label.error_kind for label in fused] == [None, "perception", None, "perception"]
    assert [label.target for label in fuse_tree(evidence, path, "mc", Reliability())] == [5 / 8, 0.0, 0.0, 0.0]
    assert fuse_tree(evidence, [([0, 1, 2, 3], None)], "judge", Reliability())[-1].target is None
    with pytest.raises(
        ValueError, match="unknown fusion rule 'vote'; known: mc, outcome, relative, judge, consensus, whole"
    ):
        fuse_tree(evidence, path, "vote", Reliability())  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Judge:
    """Rates of a simulated judge: how often it calls a correct step correct, and an error of each kind an error."""

    specificity: float
    perception: float
    reasoning: float

    def says(self, truth: str, rng: random.Random) -> Verdict:
        if rng.random() < (self.specificity if truth == "correct" else getattr(self, truth)):
            return Verdict(True) if truth == "correct" else Verdict(False, truth)  # type: ignore[arg-type]
        return Verdict(False, rng.choice(["perception", "reasoning"])) if truth == "correct" else Verdict(True)  # type: ignore[arg-type]


def simulated(trees: int, judge: Judge, seed: int) -> list[tuple[TreeEvidence, list[bool]]]:
    """Trees from a prompt with a value of 0.6: a perception step, and a reasoning step after a right one. One in three
    steps is wrong; 40% of the wrong perception steps are harmless."""
    rng, result = random.Random(seed), []
    for _ in range(trees):
        labels, kinds, parents, right = [], [], [], []
        for kind in ("perception", "perception", "reasoning", "reasoning"):
            wrong = rng.random() < 1 / 3
            spoilt = wrong and (kind == "reasoning" or rng.random() < 0.6)
            counts = sum(rng.random() < (0.02 if spoilt else 0.6) for _ in range(8))
            verdict = judge.says(kind if wrong else "correct", rng)
            labels += [StepLabel(counts, 8, 8, {"judge": verdict}), StepLabel(1, 1, 1, YES)]
            kinds += [kind, "answer"]
            parents += [-1, len(parents)]
            right += [not wrong, True]
        result.append((TreeEvidence(labels, kinds, parents, StepLabel(10, 16, 16)), right))
    return result


@pytest.mark.parametrize("judge", [Judge(0.9, 0.9, 0.9), Judge(0.97, 0.7, 0.9), Judge(0.8, 0.8, 0.6)])
def test_the_judges_rates_are_found_without_gold_labels(judge: Judge) -> None:
    quality = estimate_reliability([tree for tree, _ in simulated(300, judge, seed=1)]).sources["judge"]
    expected = {"specificity": judge.specificity, **{f"sensitivity/{k}": getattr(judge, k) for k in VERDICTS[1:3]}}
    for name, rate in expected.items():
        low, high = quality.intervals[name]
        assert quality.rates[name] == pytest.approx(rate, abs=0.08), name
        assert low - 0.04 < rate < high + 0.04, name
        assert 0.01 < high - low < 0.25, name
    assert quality.intervals["sensitivity/action"] == (0.0, 1.0)  # nobody made such an error


@pytest.mark.parametrize("judge", [Judge(0.95, 0.95, 0.95), Judge(0.8, 0.8, 0.8), Judge(0.97, 0.6, 0.6)])
def test_bayes_is_more_often_right_than_its_sources(judge: Judge) -> None:
    trees = simulated(400, judge, seed=2)
    quality = estimate_reliability([tree for tree, _ in trees[:200]])
    mistakes = {
        rule: sum(
            rule_calls_wrong(rule, target) == right
            for tree, rights in trees[200:]
            for target, right, kind in zip(RULES[rule](tree, quality), rights, tree.kinds, strict=True)
            if kind != "answer" and target is not None
        )
        for rule in ("mc", "judge", "bayes")
    }
    assert mistakes["bayes"] < min(mistakes["mc"], mistakes["judge"])


def test_without_a_judge_the_counts_decide() -> None:
    quality = estimate_reliability([chain(StepLabel(4, 8, 8))])
    assert quality == Reliability()
    assert posterior(0, 16, {}) < 0.5 < posterior(12, 16, {})


def test_a_sibling_of_high_value_corrects_a_wrong_step() -> None:
    def label(correct: int, target: float | None, rule: str = "bayes") -> StepLabel:
        return StepLabel(correct, 8, 8, {}, target, None, rule)

    wrong, good, better, unsure = label(0, 0.1), label(5, 0.9), label(7, 0.95), label(8, None)
    assert mined_corrections([wrong, good, better, unsure], [-1] * 4) == [2, None, None, None]
    assert mined_corrections([wrong, label(3, 0.9)], [-1, -1]) == [None, None]  # its own value is too low
    assert mined_corrections([good, wrong, better], [-1, 0, -1]) == [None, None, None]  # no sibling of the wrong one
    assert mined_corrections([wrong, wrong, better], [-1, 0, 0]) == [None, None, None]  # not the first wrong one
    few = dataclasses.replace(better, mc_correct=2, mc_valid=2)
    assert mined_corrections([wrong, few], [-1, -1]) == [None, None]
    assert mined_corrections([label(0, 0.0, "mc"), label(4, 0.5, "mc")], [-1, -1]) == [1, None]


def test_a_step_is_compared_with_the_last_one_before_it_that_has_counts() -> None:
    """A search makes rollouts from some steps only. No right rollout of eight is strong evidence after a step from
    which all were right, and just as strong if a step without counts lies between them."""
    counted = [StepLabel(8, 8, 8), StepLabel(), StepLabel(0, 8, 8), StepLabel(1, 1, 1)]
    evidence = TreeEvidence(counted, ["reasoning"] * 4, [-1, 0, 1, 2], StepLabel(7, 8, 8))
    value = posterior_correct(evidence, Reliability())[2]
    assert value is not None
    assert value < 0.3


def test_a_monte_carlo_value_is_wrong_at_zero_whoever_made_it() -> None:
    """A soft target of 0.3 has one meaning for values of rollouts, and one for probabilities."""
    values, probabilities = ("mc", "hybrid", "mm-prm", "omega-prm", "math-shepherd"), ("bayes", "judge", "trl", "human")
    for rule in values:
        assert [rule_calls_wrong(rule, target) for target in (0.0, 0.3, 1.0)] == [True, False, False]
    for rule in probabilities:
        assert [rule_calls_wrong(rule, target) for target in (0.0, 0.3, 0.5)] == [True, True, False]
