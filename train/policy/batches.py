"""Rows of a policy's rollouts with their advantages, and batches of them as tensors.

Shapes: B rows, T tokens, N trained tokens, R paths, M (path, token) pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from train.policy.packing import paths_row
from train.policy.trajectories import NO_STEP, Path
from vlprm.model.inputs import InputBuilder
from vlprm.model.packing import PackedRow
from vlprm.schema import Problem

# Keys of a batch that the policy does not read.
NOT_INPUTS = frozenset({
    "sampled", "old", "reference", "path", "token", "advantages", "lengths", "step", "better", "worse", "totals", "ids",
})  # fmt: skip


@dataclass(frozen=True)
class PolicyRow:
    """A packed row of rollouts. Per trained token, in row order: its place and the log-probability with which it was
    sampled. `pairs` has (path, trained token) for each path through a trained token, `advantages` one number each.
    `longest`: tokens of the longest path."""

    id: str
    row: PackedRow
    trained: tuple[int, ...]
    sampled: tuple[float, ...]
    pairs: tuple[tuple[int, int], ...]
    advantages: tuple[float, ...]
    paths: int
    longest: int


def policy_row(
    problem: Problem, paths: Sequence[Path], advantages: Sequence[Sequence[float]], inputs: InputBuilder
) -> PolicyRow:
    """The row of a problem's paths, which one version of the policy sampled. `advantages` has one number per step of
    each path. Only ids that the policy sampled are trained."""
    packed = paths_row(problem, paths, inputs)
    sampled: dict[int, float] = {}
    of_paths: list[tuple[int, int, float]] = []
    for number, (path, places) in enumerate(zip(paths, packed.places, strict=True)):
        for place, logprob, step in zip(places, path.logprobs, path.steps, strict=True):
            if logprob is not None:
                assert step != NO_STEP, "an observation is not sampled"
                sampled.setdefault(place, logprob)
                of_paths.append((number, place, advantages[number][step]))
    trained = sorted(sampled)
    index = {place: n for n, place in enumerate(trained)}
    return PolicyRow(
        id=problem.id,
        row=packed.row,
        trained=tuple(trained),
        sampled=tuple(sampled[place] for place in trained),
        pairs=tuple((number, index[place]) for number, place, _ in of_paths),
        advantages=tuple(advantage for _, _, advantage in of_paths),
        paths=len(paths),
        longest=len(inputs.prompt(problem).ids) + max(map(len, packed.places)),
    )


def policy_batch(rows: Sequence[PolicyRow], inputs: InputBuilder) -> dict[str, Tensor]:
    """A padded batch: the model's inputs with the `chosen` tokens; `sampled` (N) log-probabilities; `path` and `token`
    (M) of the pairs and their `advantages`; `lengths` (R) in trained tokens; `totals` (2): this batch's part of the
    loss's denominators, paths and their tokens."""
    path_M: list[int] = []
    token_M: list[int] = []
    advantage_M: list[float] = []
    first_path = first_token = 0
    for row in rows:
        path_M += [path + first_path for path, _ in row.pairs]
        token_M += [token + first_token for _, token in row.pairs]
        advantage_M += row.advantages
        first_path, first_token = first_path + row.paths, first_token + len(row.trained)
    path = torch.tensor(path_M, dtype=torch.long)
    return {
        **chosen_batch([row.row for row in rows], [row.trained for row in rows], inputs),
        "sampled": torch.tensor([value for row in rows for value in row.sampled]),
        "path": path,
        "token": torch.tensor(token_M, dtype=torch.long),
        "advantages": torch.tensor(advantage_M, dtype=torch.float),
        "lengths": torch.bincount(path, minlength=first_path),
        "totals": torch.tensor([float(first_path), float(len(path))]),
    }


def chosen_batch(rows: Sequence[PackedRow], chosen: Sequence[Sequence[int]], inputs: InputBuilder) -> dict[str, Tensor]:
    """The inputs of `train.policy.model.policy_class` for the log-probabilities of the tokens at these places."""
    seen = inputs.with_an_image(rows)
    batch = inputs.batch(seen)
    chosen_BT = torch.zeros(batch["input_ids"].shape, dtype=torch.bool)
    before_BT = torch.zeros(batch["input_ids"].shape, dtype=torch.long)
    for b, (row, places) in enumerate(zip(seen, chosen, strict=True)):
        chosen_BT[b, list(places)] = True
        before_BT[b, : len(row.ids)] = torch.tensor(row.before)
    return {**batch, "chosen": chosen_BT, "before": before_BT}
