"""The solutions and rows that training takes from a dataset, all in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from train.reward.config import LossConfig, RowsConfig
from train.reward.data import Example, class_counts, class_weights, examples_of, lengths
from train.reward.index import rows_of_problems
from train.reward.mixture import JoinedRows
from train.reward.trees import Tree, learnt_tree, tree_of
from vlprm.model.inputs import InputBuilder


def load_trees(path: Path, config: RowsConfig, threshold: float | None = None) -> list[Tree]:
    """The selected solutions of each problem."""
    rows = JoinedRows([path])
    problems = [tree_of((n + 1, rows[n]) for n in map(int, of)) for of in rows_of_problems(rows, map)]
    return [learnt_tree(tree, config, threshold) for tree in problems if tree]


def sized(
    trees: Sequence[Tree], config: RowsConfig, inputs: InputBuilder, loss: LossConfig
) -> tuple[list[Example], list[int]]:
    """The examples of the trees, and their lengths in tokens."""
    examples = [example for tree in trees for example in examples_of(tree, config)]
    return examples, [lengths(example, inputs, loss)[0] for example in examples]


def weights_of(trees: Sequence[Tree], loss: LossConfig) -> dict[tuple[str, bool], float]:
    """The weights of steps where these trees are all that is learnt from."""
    return class_weights([class_counts(tree, loss) for tree in trees], loss)
