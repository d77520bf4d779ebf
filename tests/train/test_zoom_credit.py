"""The credit of zooms against the ground truth of fine_print, with a policy that reads what its crops show."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pytest
import torch

from tests.train.rollouts import trajectory
from train.policy import zoom_credit
from train.policy.advantages import Estimator, Group, advantages
from train.policy.model import load_packed_policy
from train.policy.trajectories import Trajectory
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import Checkpoint
from vlprm.schema import BLANK, Problem, Region, Step
from vlprm.tasks import TASKS, known_regions
from vlprm.tasks.fine_print import CELL, LATTICE, PRINTS
from vlprm.zoom.labels import label_zooms

CREDITS = {1: "correct", 0: "redundant", -1: "erroneous"}  # by the sign of what a crop was worth


@pytest.fixture(scope="module")
def problem() -> Problem:
    """A problem that asks for one print, on a plate that a rollout can miss for another."""
    found = (TASKS["fine_print"].problem("train", i) for i in range(50))
    return next(
        one
        for one in found
        if one.meta["scene"]["content"]["type"] == "read"
        and len({plate[2] for plate in one.meta["scene"]["content"]["plates"].values()}) > 2
    )


def cell(row: int, column: int) -> Region:
    return Region((column - 1) * CELL, (row - 1) * CELL, column * CELL, row * CELL)


def zoom(problem: Problem, region: Region) -> Step:
    (name,) = known_regions(problem, TASKS)
    box = [int(v * 1000 / (LATTICE * CELL)) for v in (region.x0, region.y0, region.x1, region.y1)]
    return Step("zoom", f"[zoom] {json.dumps({'bbox_2d': box, 'label': name})}", region)


def plates(problem: Problem) -> dict[str, tuple[Region, str]]:
    return {colour: (cell(r, c), said) for colour, (r, c, said) in problem.meta["scene"]["content"]["plates"].items()}


def asked_plate(problem: Problem) -> str:
    return str(problem.meta["scene"]["content"]["asked"][0])


def paths_of(problem: Problem, inputs: InputBuilder) -> list[Trajectory]:
    """The right plate, another one with another print, the right one twice, and no zoom."""
    colour = asked_plate(problem)
    right, said = plates(problem)[colour]
    wrong, other = next((region, print_) for region, print_ in plates(problem).values() if print_ != said)

    def solved(*regions: Region, reads: str) -> Trajectory:
        steps = [
            *(zoom(problem, region) for region in regions),
            Step("perception", f"[perception] the {colour} plate has {reads}"),
            Step("answer", f"[answer] {reads}"),
        ]
        return trajectory(inputs, problem, steps)

    return [
        solved(right, reads=said), solved(wrong, reads=other), solved(right, right, reads=said), solved(reads=other)
    ]  # fmt: skip


def grouped(paths: Sequence[Trajectory], outcomes: Sequence[float]) -> Group:
    numbers: dict[tuple[Step, ...], int] = {}
    states = [
        tuple(numbers.setdefault(path.steps[: k + 1], len(numbers)) for k in range(len(path.steps))) for path in paths
    ]
    return Group(tuple(states), tuple(outcomes))


class Reader:
    """Four rollouts of a policy that reads the print in the last crop that shows one, and otherwise writes each of the
    four prints once."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.calls = problem, 0

    async def value_after(self, path: Trajectory, steps: tuple[Step, ...], key: str) -> float | None:
        self.calls += 1
        known = plates(self.problem)
        shown = [step.region for step in steps if step.region is not None and step.region.image != BLANK]
        seen = [print_ for region in shown for where, print_ in known.values() if where == region]
        said = seen[-1:] * 4 or list(PRINTS)
        return fmean(float(one == self.problem.answer) for one in said)


def test_the_credit_by_value_is_that_of_the_true_regions(problem: Problem, inputs: InputBuilder) -> None:
    paths = paths_of(problem, inputs)
    group, reader = grouped(paths, (1, 0, 1, 0)), Reader(problem)
    worth = asyncio.run(zoom_credit.by_value(paths, group, reader.value_after, budget=8))
    assert worth == [[0.75, None, None], [-0.25, None, None], [0.75, 0.0, None, None], [None, None]]
    for path, of_path in zip(paths, worth, strict=True):
        truth = {k: label.credit for k, label in label_zooms(path.steps, known_regions(problem, TASKS)).items()}
        found = {k: CREDITS[(one > 0) - (one < 0)] for k, one in enumerate(of_path or ()) if one is not None}
        assert found == truth
    assert reader.calls == 6, "a zoom on two paths is measured once"


def test_values_are_measured_within_a_budget_and_only_where_outcomes_differ(
    problem: Problem, inputs: InputBuilder
) -> None:
    paths, reader = paths_of(problem, inputs), Reader(problem)
    worth = asyncio.run(zoom_credit.by_value(paths, grouped(paths, (1, 0, 1, 0)), reader.value_after, budget=1))
    assert worth == [[0.75, None, None], [None] * 3, [0.75, None, None, None], [None, None]]
    assert reader.calls == 2
    level = asyncio.run(zoom_credit.by_value(paths, grouped(paths, (1, 1, 1, 1)), reader.value_after, budget=8))
    assert {one for of in level for one in of or ()} == {None}
    assert reader.calls == 2


def test_sibling_zooms_are_each_others_baseline(problem: Problem, inputs: InputBuilder) -> None:
    paths = paths_of(problem, inputs)
    group, reader = grouped(paths, (1, 0, 1, 0)), Reader(problem)
    worth = asyncio.run(zoom_credit.by_value(paths, group, reader.value_after, budget=8))
    found = advantages(Estimator("none", 0.0, "siblings"), worth, group)
    # Two distinct zooms at the prompt, worth 0.75 and -0.25; the second zoom of a path has no sibling.
    assert found == [[0.5, None, None], [-0.5, None, None], [0.5, 0.0, None, None], [None, None]]


def test_the_credit_by_scores(problem: Problem, inputs: InputBuilder) -> None:
    paths = paths_of(problem, inputs)

    async def scored(problem: Problem, solutions: Sequence[tuple[Step, ...]]) -> list[list[float | None] | None]:
        assert all(steps[-2].region and steps[-2].region.image == BLANK for steps in solutions)
        return [None if len(steps) == 3 else [0.5] * len(steps) for steps in solutions]

    scores = [[0.5, 0.9, 0.9], [0.5, 0.1, 0.1], [0.5, 0.9, 0.9, 0.9], [0.5, 0.5]]
    found = asyncio.run(zoom_credit.by_scores(problem, paths, grouped(paths, (1, 0, 1, 0)), scores, scored))
    expected = [[0.4, None, None], [-0.4, None, None], [0.4, None, None, None], [None, None]]
    assert [[one and round(one, 6) for one in of or ()] for of in found] == expected


def blank_log_probability(policy: Checkpoint, problem: Problem, path: Trajectory) -> float:
    """The log-probability of the ids of the second step and the break after it, after a blank, by one pass of the
    backbone's own forward."""
    inputs, region = policy.inputs, path.steps[0].region
    assert region is not None
    blank = Step("zoom", path.steps[0].text, Region(region.x0, region.y0, region.x1, region.y1, BLANK))
    after, before = inputs.begun_row(problem, [blank, path.steps[1]]), inputs.row(problem, [blank])
    with torch.no_grad():
        logits = policy.model(**inputs.batch([after])).logits[0]
    logits[:, list(inputs.banned_ids)] = -torch.inf
    ids = torch.tensor(after.ids[len(before.ids) :])
    places = torch.arange(len(before.ids) - 1, len(after.ids) - 1)
    return float((logits / 0.7).log_softmax(-1)[places, ids].sum())


def test_the_credit_by_likelihood(backbone: Path, problem: Problem) -> None:
    policy = load_packed_policy(str(backbone))
    paths = paths_of(problem, policy.inputs)
    group = grouped(paths, (1, 0, 1, 0))
    found = asyncio.run(zoom_credit.by_likelihood(problem, paths, group, policy, temperature=0.7))
    assert [[one is None for one in of or ()] for of in found] == [
        [False, True, True], [False, True, True], [False, False, True, True], [True, True]
    ]  # fmt: skip
    for path, of in zip(paths[:2], found, strict=False):
        ids = policy.inputs.text.encode(f"{path.steps[1].text}\n\n")
        assert path.turns[1].ids[: len(ids)] == ids
        sampled = math.fsum(p for p in path.turns[1].logprobs[: len(ids)] if p is not None)
        expected = math.tanh((sampled - blank_log_probability(policy, problem, path)) / 2)
        assert of is not None
        assert -1 <= (of[0] or 0) <= 1
        assert of[0] == pytest.approx(expected, abs=1e-4)
