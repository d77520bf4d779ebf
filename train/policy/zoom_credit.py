"""What a zoom's crop is worth: what follows it with the crop, less what follows it with a blank of the same size.

Three measures, none of which needs the true region: the share of right rollouts (`by_value`), the reward model's score
of the next step (`by_scores`), and the probability with which the policy writes the next step (`by_likelihood`). All
lie in [-1, 1]. Each distinct zoom of a group is measured once; None is *no result*.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from train.policy.advantages import Group, GroupNumbers, ScoreSteps
from train.policy.batches import chosen_batch
from train.policy.packing import paths_row
from train.policy.trajectories import Trajectory, path_of
from vlprm.model.loading import Checkpoint
from vlprm.model.packing import PackedRow
from vlprm.policy import all_answers
from vlprm.policy.batcher import Batcher
from vlprm.schema import Problem, Step
from vlprm.zoom.counterfactual import blank_like, prefix_with

ROWS = 8  # rows of a forward pass
Place = tuple[int, int]  # the indices of a path and of one of its steps
# The value after these first steps of a path; the text names the rollouts.
ValueAfter = Callable[[Trajectory, tuple[Step, ...], str], Awaitable[float | None]]


async def by_value(paths: Sequence[Trajectory], group: Group, value_after: ValueAfter, budget: int) -> GroupNumbers:
    """The value after each zoom's crop less the value after a blank. At most `budget` zooms are measured, those on the
    most paths first; none if the outcomes tell no path from another, because then the zooms do not either."""
    places = _places(paths, group, later=0)
    through = {state: sum(state in nodes for nodes in group.states) for state in places}
    states = [] if group.is_level else sorted(places, key=lambda state: -through[state])[:budget]

    async def worth(i: int, k: int) -> float | None:
        with_crop = await value_after(paths[i], paths[i].steps[: k + 1], f"zoom/{i}.{k}")
        blank = await value_after(paths[i], _blank(paths[i].steps, k), f"zoom/{i}.{k}/blank")
        return _less(with_crop, blank)

    found = await all_answers(worth(*places[state]) for state in states)
    return _on_zooms(dict(zip(states, found, strict=True)), paths, group, later=0)


async def by_scores(
    problem: Problem, paths: Sequence[Trajectory], group: Group, scores: GroupNumbers, scored: ScoreSteps
) -> GroupNumbers:
    """The reward model's score of the step after each zoom less its score after a blank."""
    places = _places(paths, group, later=1)
    blanks = [(*_blank(paths[i].steps, k), paths[i].steps[k + 1]) for i, k in places.values()]
    rescored = await scored(problem, blanks) if blanks else None
    worth: dict[int, float | None] = {}
    for (state, (i, k)), blank in zip(places.items(), rescored or (), strict=False):
        seen = scores[i]
        worth[state] = _less(seen[k + 1] if seen else None, blank[k + 1] if blank else None)
    return _on_zooms(worth, paths, group, later=1)


async def by_likelihood(
    problem: Problem, paths: Sequence[Trajectory], group: Group, checkpoint: Checkpoint, temperature: float
) -> GroupNumbers:
    """(p - q) / (p + q) for the probability p of the step after each zoom with the crop, as it was sampled, and q with
    a blank: bounded, and 0 where the crop makes no difference. `checkpoint` has a model of
    `train.policy.model.policy_class`."""
    # Batched in a thread in which no other model works: the policy may be sampling.
    reader: Batcher[_Asked, float] = Batcher(
        lambda asked: _log_probabilities(checkpoint, asked, temperature), lambda waiting: range(min(ROWS, len(waiting)))
    )

    async def worth(i: int, k: int) -> float | None:
        path = path_of(replace(paths[i], steps=(*_blank(paths[i].steps, k), *paths[i].steps[k + 1 :])), problem, inputs)
        packed = paths_row(problem, [path], inputs)
        followed = [
            (place, logprob)
            for place, logprob, step in zip(packed.places[0], path.logprobs, path.steps, strict=True)
            if step == k + 1 and logprob is not None
        ]
        if not followed:
            return None
        without = await reader.ask(_Asked(packed.row, tuple(place for place, _ in followed)))
        return math.tanh((math.fsum(logprob for _, logprob in followed) - without) / 2)

    inputs, places = checkpoint.inputs, _places(paths, group, later=1)
    found = await all_answers(worth(*place) for place in places.values())
    return _on_zooms(dict(zip(places, found, strict=True)), paths, group, later=1)


@dataclass(frozen=True)
class _Asked:
    """A row, and the places of tokens whose log-probability is wanted."""

    row: PackedRow
    places: tuple[int, ...]


@torch.inference_mode()
def _log_probabilities(checkpoint: Checkpoint, asked: Sequence[_Asked], temperature: float) -> list[float]:
    batch = chosen_batch([one.row for one in asked], [one.places for one in asked], checkpoint.inputs)
    batch = {name: value.to(checkpoint.model.device) for name, value in batch.items()}
    log_p = checkpoint.model(**batch, temperature=temperature, banned=checkpoint.inputs.banned_ids).log_p
    return [float(part.sum()) for part in log_p.split([len(one.places) for one in asked])]


def _places(paths: Sequence[Trajectory], group: Group, later: int) -> dict[int, Place]:
    """A place of each distinct zoom with a crop and `later` steps after it, by the state after those."""
    found: dict[int, Place] = {}
    for i, path in enumerate(paths):
        for k, step in enumerate(path.steps[: len(path.steps) - later]):
            if step.region is not None:
                found.setdefault(group.states[i][k + later], (i, k))
    return found


def _on_zooms(worth: Mapping[int, float | None], paths: Sequence[Trajectory], group: Group, later: int) -> GroupNumbers:
    """For each zoom what is known at the state `later` steps after it; None for other steps."""
    return [
        [worth.get(nodes[k + later]) if k + later < len(nodes) and _shows(path, k) else None for k in range(len(nodes))]
        for path, nodes in zip(paths, group.states, strict=True)
    ]


def _shows(path: Trajectory, k: int) -> bool:
    return k < len(path.steps) and path.steps[k].region is not None


def _blank(steps: tuple[Step, ...], k: int) -> tuple[Step, ...]:
    """The steps up to a zoom, with a blank of its crop's size."""
    region = steps[k].region
    assert region is not None
    return prefix_with(steps, k, blank_like(region))


def _less(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other
