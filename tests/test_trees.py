"""What a training row is made of: solutions that had a row each, as one tree."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from train.data import labelled_row
from train.losses import LossConfig
from train.trees import RowsConfig, Tree, load_trees, merged
from vlprm.inputs import InputBuilder


def as_rows(tree: Tree) -> list[Tree]:
    """The solutions of a tree as a dataset has them that gives each a row, which numbers its own steps."""
    return [[dataclasses.replace(path, nodes=tuple(range(len(path.steps))))] for path in tree]


def test_solutions_that_had_a_row_each_make_the_rows_of_their_tree(dataset: Path, inputs: InputBuilder) -> None:
    loss = LossConfig(siblings=1.0, candidates=1.0)
    for tree in load_trees(dataset, RowsConfig()):
        labelled = [labelled_row(t, inputs, loss, {}) for t in (tree, merged(as_rows(tree)))]
        assert labelled[0].row.ids == labelled[1].row.ids
        assert [(r.targets, r.weights, r.siblings, r.candidates, r.paths) for r in labelled[:1]] == [
            (r.targets, r.weights, r.siblings, r.candidates, r.paths) for r in labelled[1:]
        ]
