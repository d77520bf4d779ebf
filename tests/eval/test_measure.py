"""Selectors and metrics, compared with brute force and with values computed by hand."""

import dataclasses
import itertools
import math
import random

import numpy as np
import pytest

from eval.runs import measures
from eval.runs.pools import Pool
from vlprm.metrics import (
    auroc,
    bootstrap_interval,
    expected_best_of,
    grouped_interval,
    points_text,
    precision_recall_f1,
)
from vlprm.schema import Verdict
from vlprm.scoring.aggregate import AGGREGATIONS
from vlprm.scoring.tree import StepScore
from vlprm.search.select import Candidate, likeliest, rewards_of, selectors


def test_expected_best_of_n_is_the_mean_over_all_subsets() -> None:
    rng = random.Random(0)
    right = [float(rng.random() < 0.4) for _ in range(7)]
    for n in range(1, 8):
        subsets = list(itertools.combinations(range(7), n))  # the best-scored of a subset has the smallest index
        assert expected_best_of(right, n) == pytest.approx(sum(right[s[0]] for s in subsets) / len(subsets))
    with pytest.raises(ValueError, match="best-of-8 of a pool of 7"):
        expected_best_of(right, 8)


def test_auroc_counts_pairs() -> None:
    scores, positive = [0.1, 0.4, 0.4, 0.8], [False, True, False, True]
    assert auroc(scores, positive) == pytest.approx((1 + 0.5 + 2) / 4)
    assert math.isnan(auroc(scores, [True] * 4))
    assert precision_recall_f1([1, 1, 0, 0], [1, 0, 1, 0]) == (0.5, 0.5, 0.5)
    assert precision_recall_f1([0, 0], [1, 0]) == (0.0, 0.0, 0.0)


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for i in range(200):
        low, high = bootstrap_interval(rng.random(60) < 0.3, resamples=400, seed=i)
        covered += low <= 0.3 <= high
    assert 0.88 <= covered / 200 <= 0.99


def pool(*candidates: tuple[str | None, tuple[float, ...] | None]) -> list[Candidate]:
    return [Candidate(answer, rewards, rewards[-1] if rewards else None) for answer, rewards in candidates]


def chosen(name: str, candidates: list[Candidate]) -> list[float]:
    return [round(share, 3) for share in selectors("min")[name](candidates)]


def test_values_of_one_problem_are_not_taken_for_many() -> None:
    right = (np.random.default_rng(0).random(60) < 0.3).astype(float)
    assert grouped_interval([[r] * 8 for r in right]) == pytest.approx(bootstrap_interval(right))
    low, high = bootstrap_interval(np.repeat(right, 8))
    assert high - low < 0.5 * np.subtract(*reversed(grouped_interval([[r] * 8 for r in right])))


def test_selectors_choose_what_they_say() -> None:
    three = pool(("a", (0.9, 0.2)), ("b", (0.5, 0.6)), ("a", (0.9, 0.4)), (None, (1.0, 1.0)))
    assert chosen("random", three) == [0.333, 0.333, 0.333, 0]
    assert chosen("majority", three) == [0.5, 0, 0.5, 0]
    assert chosen("weighted_majority", three) == [0.5, 0, 0.5, 0]  # 0.2 + 0.4 against 0.5: a
    assert chosen("prm_min", three) == [0, 1, 0, 0]
    assert chosen("prm_last", three) == [0, 1, 0, 0]
    assert chosen("prm_mean", three) == [0, 0, 1, 0]
    assert chosen("prm_product", three) == [0, 0, 1, 0]
    assert chosen("whole_solution", three) == [0, 1, 0, 0]


def test_what_surprises_the_backbone_least_is_chosen_where_its_surprise_is_known() -> None:
    candidates = [
        dataclasses.replace(c, surprise=nats)
        for c, nats in zip(pool(("a", (0.9,)), ("b", (0.5,))), (3.0, 0.1), strict=True)
    ]
    assert likeliest(candidates) == [0, 1]
    known = [
        dataclasses.replace(p, candidates=tuple(dataclasses.replace(c, surprise=1.0) for c in p.candidates))
        for p in POOLS
    ]
    assert measures.selection(known, "min")["likeliest"]["accuracy"] == pytest.approx(2 / 3)


def test_ties_are_split_and_failures_never_chosen_before_results() -> None:
    assert chosen("prm_min", pool(("a", (0.5,)), ("b", (0.5,)), ("c", (0.1,)))) == [0.5, 0.5, 0]
    assert chosen("majority", pool(("a", (0.1,)), ("b", (0.9,)))) == [0.5, 0.5]
    assert chosen("prm_min", pool((None, (0.9,)), ("b", None), ("c", (0.1,)))) == [0, 0, 1]


@pytest.mark.parametrize("name", selectors("min"))
def test_every_selector_passes_over_a_candidate_without_an_answer_while_another_has_one(name: str) -> None:
    assert chosen(name, pool((None, (0.9,)), ("b", None), (None, None))) == [0, 1, 0]
    assert sum(chosen(name, pool((None, (0.9,)), (None, None)))) == 1


def test_aggregations() -> None:
    rewards = (0.5, 0.8, 0.4)
    values = {name: rule(rewards) for name, rule in AGGREGATIONS.items()}
    assert values == pytest.approx(
        {"last": 0.4, "min": 0.4, "mean": 1.7 / 3, "product": 0.16, "mean_odds": (1 + 4 + 2 / 3) / 3}
    )


Known = tuple[str | None, list[float], list[Verdict | None]]  # an answer, rewards and truth of its steps


def scored(*known: Known) -> Pool:
    scores = [tuple(StepScore(r, (1 - r) * 0.75, (1 - r) * 0.25) for r in rewards) for _, rewards, _ in known]
    candidates = [Candidate(k[0], rewards_of(of), k[1][-1]) for k, of in zip(known, scores, strict=True)]
    right = [None if answer is None else answer == "1" for answer, _, _ in known]
    truth = tuple(tuple(truth) for _, _, truth in known)
    return Pool("chart", "p", "chart/sum", tuple(candidates), tuple(right), scores=tuple(scores), truth=truth)


OK, SEES, THINKS = Verdict(True), Verdict(False, "perception"), Verdict(False, "reasoning")
POOLS = [
    scored(("1", [0.9, 0.8], [OK, OK]), ("2", [0.2, 0.4], [SEES, SEES])),
    scored(("1", [0.3, 0.6], [OK, None]), ("2", [0.9, 0.7], [OK, THINKS])),
    scored(("1", [0.9, 0.9], [OK, OK]), ("1", [0.9, 0.9], [SEES, OK])),
]


def test_step_measures_by_hand() -> None:
    found = measures.steps(POOLS, "min")
    assert (found["steps"], found["unparsed"]) == (11, 1)
    assert found["within_problem_outcome_accuracy"] == 0.5  # right above wrong in the first, below in the second
    assert found["mixed_problems"] == 2
    # First errors: found in the first pool's two; unknown, then missed, in the second; right, then missed.
    assert found["first_error_accuracy"] == pytest.approx(3 / 5)
    # Called perception errors: 0.2, 0.4 (true) and 0.3 (false); there are three.
    assert found["perception_error_f1"] == pytest.approx(2 / 3)
    assert found["f1_error"] == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))


def test_selection_by_hand() -> None:
    found = measures.selection(POOLS, "min")
    assert found["random"]["accuracy"] == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert found["prm_min"]["accuracy"] == pytest.approx((1 + 0 + 1) / 3)
    assert found["prm_min"]["fully_right"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert found["oracle"]["accuracy"] == 1
    fixed = {"random", "majority", "weighted_majority", "whole_solution", "oracle"}
    assert set(found) == fixed | {f"prm_{name}" for name in AGGREGATIONS}
    assert measures.mean_curve(POOLS, "min") == pytest.approx({"1": 2 / 3, "2": 2 / 3})
    assert measures.differences(POOLS, "min")["share_of_room_closed"] == pytest.approx(0.0)


def test_candidates_without_an_answer_are_counted_and_are_in_no_mean_over_candidates() -> None:
    half = scored(("1", [0.9], [OK]), (None, [0.95], [OK]), (None, [0.1], [OK]))
    none = scored((None, [0.9], [OK]), (None, [0.2], [OK]), (None, [0.1], [OK]))
    assert measures.no_results([half, none]) == {"candidates": 5, "problems": 1}
    found = measures.selection([half, none], "min")
    assert {name: row["accuracy"] for name, row in found.items()} == dict.fromkeys(found, 0.5)
    assert measures.mean_curve([half, none], "min") == {"1": 0.5, "2": 0.5, "3": 0.5}
    assert not half.is_mixed
    assert POOLS[0].is_mixed


def test_a_question_type_has_its_problems_and_the_accuracies_of_their_selection() -> None:
    other = dataclasses.replace(POOLS[0], question_type="chart/difference")
    found = measures.by_question_type([*POOLS, other], "min")
    assert {name: row["problems"] for name, row in found.items()} == {"chart/difference": 1, "chart/sum": 3}
    assert found["chart/sum"]["mixed"] == pytest.approx(2 / 3)
    for name, row in measures.selection(POOLS, "min").items():
        assert found["chart/sum"][name] == pytest.approx(row["accuracy"])


@pytest.mark.parametrize("n", [1, 3, 8, 16, 24])
def test_the_curve_goes_from_a_random_candidate_to_the_best_of_all(n: int) -> None:
    rng = random.Random(n)
    pools = [scored(*((rng.choice("12"), [rng.random()], [OK]) for _ in range(n))) for _ in range(5)]
    found, chosen = measures.mean_curve(pools, "min"), measures.selection(pools, "min")
    assert list(found) == [str(k) for k in (1, 2, 4, 8, 16) if k < n] + [str(n)]
    assert found["1"] == pytest.approx(chosen["random"]["accuracy"])
    assert found[str(n)] == pytest.approx(chosen["prm_min"]["accuracy"])


def test_a_pool_that_nobody_scored_and_whose_truth_is_not_known_has_the_votes_alone() -> None:
    plain = [
        dataclasses.replace(
            p, truth=None, candidates=tuple(dataclasses.replace(c, rewards=None, whole=None) for c in p.candidates)
        )
        for p in POOLS
    ]
    found = measures.selection(plain, "min", {"step_beam": [1.0, 0.0, 1.0]})
    assert list(found) == ["random", "majority", "oracle", "step_beam"]
    assert not any("fully_right" in row for row in found.values())


def test_a_difference_is_in_signed_points_and_a_zero_has_one_sign() -> None:
    assert points_text((0.0123, -0.0456, 0.1)) == "+1.2 (-4.6 to +10.0)"
    assert points_text((-0.0, -0.0004, 0.0004)) == "+0.0 (+0.0 to +0.0)"
