"""Monte Carlo values compared with the known value of each prefix, in the world of `tests.perf.mock`.

The value of a prefix in a tree may differ from the truth only by chance: rollouts that made the search look at a prefix
must not count in its value.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Iterator
from functools import cache, partial

import numpy as np
import pytest

from data_synth.judges.oracle import on_each_path, oracle_judge
from data_synth.search.config import TreeSearchConfig
from data_synth.search.estimators import search
from tests.perf.mock import FAMILY, STEPS, MockPolicy
from tests.teacher import TeacherEngine
from vlprm.labels import judge_reliability
from vlprm.labels.fusion import with_votes
from vlprm.labels.judge_reliability import MIN_VALID, TreeEvidence, estimate_reliability
from vlprm.schema import StepTree
from vlprm.tasks import TASKS

FLAT = TreeSearchConfig(estimator="flat", solutions=2)
# A search, the changes of its policy, and a number of problems for which chance is small compared to 0.01.
CASES: dict[str, tuple[TreeSearchConfig, dict[str, float], int]] = {
    "omega, k = 4": (TreeSearchConfig(rollouts=4, searches=12), {}, 200),
    "omega, k = 8": (TreeSearchConfig(rollouts=8, searches=12), {}, 120),
    "omega, k = 16": (TreeSearchConfig(rollouts=16, searches=6), {}, 120),
    "omega, several searches at once": (TreeSearchConfig(rollouts=4, searches=12, searches_at_once=4), {}, 200),
    "omega, steps worded alike": (TreeSearchConfig(rollouts=4, searches=12), {"bits": 1}, 300),
    "flat, k = 4": (dataclasses.replace(FLAT, rollouts=4), {}, 150),
    "flat, k = 8": (dataclasses.replace(FLAT, rollouts=8), {}, 100),
    "flat, steps worded alike": (dataclasses.replace(FLAT, rollouts=4), {"bits": 1}, 200),
    "flat, problems seldom solved": (dataclasses.replace(FLAT, root_rollouts=4, rollouts=8), {"error_rate": 0.15}, 300),
}


@cache
def errors(case: str) -> list[list[tuple[int, float]]]:
    """For each problem: the number of counts of each right prefix, and the error of its value."""
    config, changes, problems = CASES[case]
    policy = MockPolicy()
    vars(policy).update(changes)

    async def searched() -> list[StepTree]:
        return [await search(FAMILY.problem("train", i), policy, config, seed=5) for i in range(problems)]

    return [list(_errors(tree, policy.error_rate)) for tree in asyncio.run(searched())]


def _errors(tree: StepTree, error_rate: float) -> Iterator[tuple[int, float]]:
    depths: list[int] = []  # 0: a step up to here is wrong
    for node in tree.nodes:
        above = 0 if node.parent < 0 else depths[node.parent]
        right = "clean" in node.step.text and (node.parent < 0 or above > 0)
        depths.append(above + 1 if right else 0)
        if right and node.label.mc_valid:
            value = node.label.mc_correct / node.label.mc_valid
            yield node.label.mc_valid, value - (1 - error_rate) ** (STEPS - depths[-1])


@pytest.mark.parametrize("at_least", [1, MIN_VALID])
@pytest.mark.parametrize("case", CASES)
def test_values_are_off_by_chance_alone(case: str, at_least: int) -> None:
    each = [found for tree in errors(case) if (found := [error for valid, error in tree if valid >= at_least])]
    sizes, sums = np.array([len(found) for found in each]), np.array([sum(found) for found in each])
    bias = sums.sum() / sizes.sum()
    deviation = math.sqrt(((sums - bias * sizes) ** 2).sum()) / sizes.sum()  # the prefixes of a problem go together
    print(f"{case}, {at_least}: bias {bias:+.4f} +- {deviation:.4f} of {sizes.sum()} prefixes")
    assert abs(bias) < 3 * deviation
    assert abs(bias) < 0.01


@pytest.mark.slow
def test_a_judges_rates_are_found_in_trees_of_a_search() -> None:
    """A search makes rollouts mostly near errors: counts of these rollouts alone make the judge seem to raise false
    alarms on three steps of four."""
    seen = []
    for i in range(80):
        family = list(TASKS.values())[i % 5]
        problem = family.problem("train", i)
        tree = asyncio.run(search(problem, TeacherEngine(0.25), TreeSearchConfig(searches=4), seed=1))
        evidence, verdicts = (
            TreeEvidence.of(tree),
            on_each_path(tree, partial(oracle_judge, family, problem, error_rate=0.1, seed=3)),
        )
        seen.append(dataclasses.replace(evidence, labels=with_votes(evidence.labels, {"judge": verdicts})))
    rates = estimate_reliability(seen).sources["judge"].rates
    for name in ("specificity", "sensitivity/perception", "sensitivity/reasoning"):
        assert rates[name] == pytest.approx(0.9, abs=0.08), name


def test_alarms_of_a_liar_do_not_make_a_judge_seem_to_raise_false_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all alarms, neither source seems to tell errors from correct steps; without the liar's, the judge does."""
    monkeypatch.setattr(judge_reliability, "RESAMPLES", 2)  # intervals take most of the time of an estimate
    both, alone = [], []
    for i in range(100):
        family = TASKS[("count_grid", "pattern", "chart", "figure")[i % 4]]
        problem = family.problem("validation", i)
        config = TreeSearchConfig(estimator="flat", solutions=4, rollouts=8)
        tree = asyncio.run(search(problem, TeacherEngine(0.25), config, seed=1))
        votes = {
            name: on_each_path(tree, partial(oracle_judge, family, problem, error_rate=rate, seed=seed))
            for name, rate, seed in (("judge", 0.25, 100), ("liar", 0.7, 101))
        }
        evidence = TreeEvidence.of(tree)
        both.append(dataclasses.replace(evidence, labels=with_votes(evidence.labels, votes)))
        alone.append(dataclasses.replace(evidence, labels=with_votes(evidence.labels, {"judge": votes["judge"]})))
    expected, found = (estimate_reliability(seen).sources["judge"].rates["specificity"] for seen in (alone, both))
    assert found == pytest.approx(expected, abs=0.05)
