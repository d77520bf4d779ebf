"""Pairs of next steps as packed rows and tensors, and their log-probabilities under the reference.

Shapes: B rows, T tokens, N tokens of compared steps, S compared steps, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from train.loop.batches import model_inputs, token_lengths
from train.policy.batches import NOT_INPUTS, chosen_batch
from train.policy.pairs import PairTree
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import Checkpoint
from vlprm.model.packing import PackedRow, padded_batches
from vlprm.schema import path_to


@dataclass(frozen=True)
class PairExample:
    """The pairs of a tree, its compared steps, and the log-probability of each under the reference (empty: not
    known)."""

    tree: PairTree
    compared: tuple[int, ...]
    reference: tuple[float, ...] = ()


def pair_example(tree: PairTree) -> PairExample:
    """The example of a tree."""
    return PairExample(tree, tuple(sorted({node for pair in tree.pairs for node in (pair.better, pair.worse)})))


def example_size(example: PairExample, inputs: InputBuilder) -> tuple[int, int]:
    """Tokens of an example's rows, and of its longest path."""
    tree = example.tree
    if not inputs.family.cannot_pack:
        return token_lengths(inputs.tree_nodes(tree.problem, tree.steps, tree.parents))
    longest = max(len(row.ids) for row, _ in _rows(example, inputs))
    return longest * len(example.compared), longest


def pair_batch(examples: Sequence[PairExample], inputs: InputBuilder) -> dict[str, Any]:
    """A padded batch: the model's inputs with the `chosen` tokens of the compared steps; per token (N) its `step`; per
    step (S) its number of tokens and `reference`; per pair (P) the `better` and the `worse` step; `totals` (1): its
    number of pairs."""
    rows: list[PackedRow] = []
    places: list[list[int]] = []
    step_N: list[int] = []
    better_P, worse_P, first = [], [], 0
    for example in examples:
        for row, of_row in _rows(example, inputs):
            chosen = sorted((place, step) for step, own in of_row.items() for place in own)
            rows.append(row)
            places.append([place for place, _ in chosen])
            step_N += [first + step for _, step in chosen]
        at = {node: first + k for k, node in enumerate(example.compared)}
        better_P += [at[pair.better] for pair in example.tree.pairs]
        worse_P += [at[pair.worse] for pair in example.tree.pairs]
        first += len(example.compared)
    step = torch.tensor(step_N)
    return {
        **chosen_batch(rows, places, inputs),
        "step": step,
        "lengths": torch.bincount(step, minlength=first),
        "reference": torch.tensor([value for example in examples for value in example.reference]),
        "better": torch.tensor(better_P),
        "worse": torch.tensor(worse_P),
        "totals": torch.tensor([float(len(better_P))]),
        "ids": [example.tree.problem.id for example in examples],
    }


def _rows(example: PairExample, inputs: InputBuilder) -> list[tuple[PackedRow, dict[int, list[int]]]]:
    """The rows of an example, each with the places of its compared steps by their index. A backbone that cannot read
    branches gets one row per compared step."""
    tree = example.tree
    if not inputs.family.cannot_pack:
        row = inputs.tree(tree.problem, tree.steps, tree.parents)
        return [(row, {k: _written(row, node, inputs) for k, node in enumerate(example.compared)})]
    rows = []
    for k, node in enumerate(example.compared):
        path = path_to(node, tree.parents)
        row = inputs.row(tree.problem, [tree.steps[n] for n in path])
        rows.append((row, {k: _written(row, len(path) - 1, inputs)}))
    return rows


def _written(row: PackedRow, step: int, inputs: InputBuilder) -> list[int]:
    """The places of a step's ids, without the end of the turn: whether a zoom ended it is not what a pair compares."""
    return [
        place
        for place, (of_step, token) in enumerate(zip(row.written_in, row.ids, strict=True))
        if of_step == step and token != inputs.end_of_turn
    ]


@torch.no_grad()
def step_log_probabilities(
    examples: Sequence[PairExample], checkpoint: Checkpoint, budget: int, bfloat16: bool
) -> list[tuple[float, ...]]:
    """The log-probability of each compared step of each example."""
    found: dict[int, tuple[float, ...]] = {}
    device = checkpoint.model.device
    sizes = [example_size(example, checkpoint.inputs)[0] for example in examples]
    for indices in padded_batches(sizes, budget):
        batch = pair_batch([examples[i] for i in indices], checkpoint.inputs)
        seen = {name: value.to(device) for name, value in model_inputs(batch, NOT_INPUTS).items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            log_p_N = checkpoint.model(**seen).log_p.float().cpu()
        log_p_S = torch.zeros(len(batch["lengths"])).index_add(0, batch["step"], log_p_N).tolist()
        for i in indices:
            count = len(examples[i].compared)
            found[i], log_p_S = tuple(log_p_S[:count]), log_p_S[count:]
    return [found[i] for i in range(len(examples))]
