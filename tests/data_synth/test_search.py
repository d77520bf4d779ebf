"""The two estimators, their shared counts, and rollouts that stop when their posterior is decided."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from scipy.stats import beta

from data_synth.search.config import TreeSearchConfig
from data_synth.search.estimators import search
from data_synth.search.tree import State, is_decided, is_mixed
from tests.perf.mock import FAMILY, STEPS, MockEngine
from tests.perf.synth_cost import Watched
from tests.teacher import TeacherEngine
from vlprm.policy import Continuation, Policy, Request
from vlprm.schema import Problem, StepTree
from vlprm.tasks import TASKS

MOCK = TreeSearchConfig(rollouts=8, searches=6, solutions=2)


def searched(problem: Problem, engine: Policy, **changes: object) -> StepTree:
    return asyncio.run(search(problem, engine, dataclasses.replace(MOCK, **changes), seed=3))  # type: ignore[arg-type]


def mixed_problem() -> Problem:
    problems = (FAMILY.problem("train", i) for i in range(20))
    return next(p for p in problems if is_mixed(searched(p, MockEngine(), searches=0)))


def test_flat_rolls_every_interior_prefix_of_its_solutions_in_one_round() -> None:
    engine = MockEngine()
    tree = searched(mixed_problem(), engine, estimator="flat")
    assert tree.rollouts == 8 + 2 * (STEPS - 1) * 8
    assert tree.requests == engine.requests.total() == 1 + 2 * (STEPS - 1)
    assert max(engine.rounds.values()) == 2
    for leaf, _ in tree.leaves[:2]:
        counts = [tree.nodes[n].label.mc_valid for n in tree.path(leaf)[:-1]]
        assert counts == [8] * (STEPS - 1)  # without the one that passed through


def test_flat_rolls_a_shared_prefix_once() -> None:
    """The policy often writes the same first step on charts."""
    problem = TASKS["chart"].problem("train", 3)
    watched = Watched(TeacherEngine())
    tree = searched(problem, watched, estimator="flat", solutions=8)
    assert is_mixed(tree)
    interior = {prefix for prefix in watched.prefixes if len(prefix) > 1}
    assert tree.rollouts == 8 + 8 * len(interior)
    paths = [tree.path(leaf) for leaf, _ in tree.leaves]
    assert len(interior) < sum(len(path) - 1 for path in paths)


def test_the_budget_ends_a_search() -> None:
    problem = mixed_problem()
    assert searched(problem, MockEngine(), estimator="flat", budget=40).rollouts == 40
    assert searched(problem, MockEngine(), searches=100, budget=40).rollouts <= 40 + 4 * 8


def test_searches_side_by_side_take_fewer_rounds() -> None:
    one, two = MockEngine(), MockEngine()
    problem = mixed_problem()
    searched(problem, one)
    searched(problem, two, searches_at_once=2)
    assert max(two.rounds.values()) < max(one.rounds.values())
    assert max(one.rounds.values()) == one.requests.total()


def test_a_tree_does_not_depend_on_which_answer_came_first() -> None:
    class Hurried(MockEngine):
        async def sample(self, request: Request) -> list[Continuation]:
            answer = await super().sample(request)
            await asyncio.sleep(0.001 * (hash(request.key) % 7))
            return answer

    problem = mixed_problem()
    for changes in ({"estimator": "flat"}, {"searches_at_once": 3}, {"estimator": "flat", "decided": 0.9}):
        assert searched(problem, Hurried(), **changes) == searched(problem, MockEngine(), **changes)


def test_a_decided_posterior_stops_the_rollouts_and_the_saving_is_kept() -> None:
    tree = searched(mixed_problem(), MockEngine(), decided=0.9, searches=20)
    assert tree.rollouts < 0.8 * tree.planned
    whole = searched(mixed_problem(), MockEngine(), searches=20)
    assert whole.rollouts == whole.planned
    for node in tree.nodes:  # all that stopped early were right to
        if node.label.mc_correct == 0 and node.label.mc_valid >= 4:
            assert "wrong" in node.step.text


@pytest.mark.parametrize(("correct", "valid"), [(0, 1), (0, 5), (1, 1), (2, 2), (1, 4), (3, 8)])
def test_the_posterior_is_the_beta_distribution(correct: int, valid: int) -> None:
    above = beta(correct + 0.5, valid - correct + 0.5).sf(0.2)
    surest = max(above, 1 - above)
    state = State(0, correct, valid, valid)
    assert is_decided(state, 0.2, surest - 1e-9)
    assert not is_decided(state, 0.2, surest + 1e-9)
    assert not is_decided(State(0), 0.2, 0.5)  # without rollouts that have a result, nothing is decided


@pytest.mark.parametrize("estimator", ["flat", "omega"])
def test_a_zoom_is_a_node_whose_children_see_the_crop(estimator: str) -> None:
    seen: list[Request] = []

    class Watching(TeacherEngine):
        async def sample(self, request: Request) -> list[Continuation]:
            seen.append(request)
            return await super().sample(request)

    tree = searched(TASKS["fine_print"].problem("train", 0), Watching(0.3), estimator=estimator)
    zooms = {i for i, node in enumerate(tree.nodes) if node.step.kind == "zoom"}
    assert zooms
    assert all(tree.nodes[i].step.region is not None for i in zooms if any(n.parent == i for n in tree.nodes))
    after_zoom = [request for request in seen if any(step.kind == "zoom" for step in request.steps)]
    assert after_zoom
    assert all(step.region is not None for request in after_zoom for step in request.steps if step.kind == "zoom")
    assert tree.requests == len(seen)
