"""The ids that are trained are those that were sampled, and each belongs to one step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.train.rollouts import COUNT, READ, RED, TOLD, ZOOM, grid_problem, trajectory
from train.policy.packing import paths_row
from train.policy.trajectories import NO_STEP, SampledTurn, kept_turn, path_of, step_of_each_id
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import load_inputs
from vlprm.schema import Step, from_json, to_json


@pytest.fixture(scope="module", params=["qwen3_vl", "qwen2_5_vl"])
def inputs(tiny_backbone: Callable[[str], Path], request: pytest.FixtureRequest) -> InputBuilder:
    """The second has one id for a full stop with the line breaks after it."""
    return load_inputs(tiny_backbone(request.param))


def sampled(inputs: InputBuilder, text: str) -> tuple[int, ...]:
    return inputs.text.encode(text)


def test_an_id_belongs_to_the_step_whose_separator_it_completes(inputs: InputBuilder) -> None:
    steps = [READ, COUNT, RED]
    ids = sampled(inputs, "\n\n".join(step.text for step in steps))
    of_step = step_of_each_id(inputs.tokenizer, ids, steps)
    assert of_step == sorted(of_step)
    texts = [inputs.tokenizer.decode([i for i, s in zip(ids, of_step, strict=True) if s == k]) for k in range(3)]
    assert texts == [READ.text + "\n\n", COUNT.text + "\n\n", RED.text]


def test_a_step_that_was_cut_short_belongs_to_the_last_whole_one(inputs: InputBuilder) -> None:
    whole = trajectory(inputs, grid_problem(), [ZOOM, READ])
    tail = sampled(inputs, "\n\n[reasoning] red")
    last = whole.turns[-1]
    longer = SampledTurn(1, last.ids[:-1] + tail, (*last.logprobs[:-1], *[-1.0] * len(tail)))
    path = path_of(replace(whole, turns=(whole.turns[0], longer)), grid_problem(), inputs)
    assert path.steps[-len(tail) :] == (1,) * len(tail)
    begun = replace(whole, steps=(ZOOM,), turns=(whole.turns[0], SampledTurn(0, tail, (-1.0,) * len(tail))))
    assert path_of(begun, grid_problem(), inputs).steps[-len(tail) :] == (0,) * len(tail)


def test_a_turn_that_was_cut_keeps_its_sampled_ids(inputs: InputBuilder) -> None:
    """Text after the zoom is dropped. Where no sampled id ends with the zoom, the last ids were not sampled."""
    zoom = Step("zoom", "[zoom] red.", told="that is no box")
    steps = [READ, zoom]
    ids = sampled(inputs, f"{READ.text}\n\n{zoom.text}\n\n[answer] red")
    turn = kept_turn(inputs, steps, ids, [-0.5] * len(ids))
    assert inputs.tokenizer.decode(turn.ids) == f"{READ.text}\n\n{zoom.text}"
    whole = ids[: len(turn.ids)] == turn.ids
    assert turn.logprobs == (*[-0.5] * (len(turn.ids) - 1), -0.5 if whole else None)
    assert whole == (inputs.text.encode(".\n\n")[0] == inputs.text.encode(".")[0])
    ended = (*sampled(inputs, f"{READ.text}\n\n{zoom.text}"), inputs.end_of_turn)
    assert kept_turn(inputs, steps, ended, [-0.5] * len(ended)) == SampledTurn(2, ended, (-0.5,) * len(ended))


def test_a_path_in_a_tree_has_the_ids_of_the_path_alone(inputs: InputBuilder) -> None:
    problem = grid_problem()
    rollouts = [
        trajectory(inputs, problem, steps, cut=cut)
        for steps, cut in (([ZOOM, READ, RED], False), ([ZOOM, READ, COUNT], True), ([READ, TOLD, RED], False))
    ]
    paths = [path_of(rollout, problem, inputs) for rollout in rollouts]
    tree = paths_row(problem, paths, inputs)
    first = len(inputs.prompt(problem).ids)
    for path, places in zip(paths, tree.places, strict=True):
        alone = paths_row(problem, [path], inputs)
        assert alone.places == (tuple(range(first, len(alone.row.ids))),)
        assert [tree.row.ids[p] for p in places] == list(alone.row.ids[first:])
        assert tree.row.positions[:, list(places)].equal(alone.row.positions[:, first:])
        before = [tree.row.before[p] for p in places]
        assert before == [first - 1, *places[:-1]]
    assert len(tree.row.images) == 2, "the problem's image and one crop, which two paths share"
    assert set(tree.places[0]) & set(tree.places[1]) - set(tree.places[2])


def test_observations_belong_to_no_step(inputs: InputBuilder) -> None:
    rollout = trajectory(inputs, grid_problem(), [ZOOM, RED], cut=True)
    path = path_of(rollout, grid_problem(), inputs)
    shown = [known for known, step in zip(path.logprobs, path.steps, strict=True) if step == NO_STEP]
    assert shown == [None] * len(inputs.observation(grid_problem(), ZOOM).ids)
    ended = path_of(trajectory(inputs, grid_problem(), [ZOOM, RED]), grid_problem(), inputs)
    assert len(ended.steps) == len(path.steps)
    assert ended.steps.count(NO_STEP) == len(shown) - 1, "the sampled end of the turn is the zoom's"


def test_a_trajectory_is_read_as_it_was_written(inputs: InputBuilder) -> None:
    rollout = trajectory(inputs, grid_problem(), [ZOOM, READ, RED], given=2)
    assert from_json(type(rollout), to_json(rollout)) == rollout
