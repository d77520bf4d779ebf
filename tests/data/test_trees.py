"""The content of a training row: solutions that had one row each, merged into a tree."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tests.learnt import load_trees, weights_of
from train.reward.config import LossConfig, RowsConfig
from train.reward.data import labelled_row
from train.reward.trees import Tree, learnt_from, merged
from vlprm.model.inputs import InputBuilder


def as_rows(tree: Tree) -> list[Tree]:
    """The solutions of a tree as a dataset with one row per solution, each of which numbers its own steps."""
    return [[dataclasses.replace(path, nodes=tuple(range(len(path.steps))))] for path in tree]


def test_solutions_that_had_a_row_each_make_the_rows_of_their_tree(dataset: Path, inputs: InputBuilder) -> None:
    loss = LossConfig(siblings=1.0, candidates=1.0)
    for tree in load_trees(dataset, RowsConfig()):
        labelled = [labelled_row(t, inputs, loss, {}) for t in (tree, merged(as_rows(tree)))]
        assert labelled[0].row.ids == labelled[1].row.ids
        assert [(r.targets, r.weights, r.siblings, r.candidates, r.paths) for r in labelled[:1]] == [
            (r.targets, r.weights, r.siblings, r.candidates, r.paths) for r in labelled[1:]
        ]


def test_one_threshold_says_which_steps_are_wrong_wherever_that_is_asked(dataset: Path, inputs: InputBuilder) -> None:
    """By the rule of Monte Carlo values, steps without any right rollout are wrong."""
    path = load_trees(dataset, RowsConfig())[0][0]
    first, second, third = (
        dataclasses.replace(path.labels[0], target=target, error_kind=None, rule="mc") for target in (0.2, 0.4, 0.0)
    )
    path = dataclasses.replace(
        path, steps=path.steps[:2], nodes=(0, 1), labels=(first, second), corrected=path.corrected[:2]
    )
    sibling = dataclasses.replace(path, nodes=(2, 3), labels=(third, second))
    for threshold, wrong in ((None, (False, False)), (0.3, (True, False)), (0.4, (True, True))):
        loss = LossConfig(labels="hard", threshold=threshold, siblings=1.0)
        row = labelled_row([path, sibling], inputs, loss, {})
        assert row.wrong == (*wrong, True, wrong[1])
        assert row.targets == tuple(float(not w) for w in row.wrong)
        assert row.siblings == (() if wrong[0] else ((0, 2),))
        cut = learnt_from(path, "stop", threshold)
        assert len(cut.steps) == (1 if wrong[0] else 2)
        kind = f"{path.problem.meta['task']}/{path.problem.meta['question_type']}"
        heavy = weights_of([[path]], LossConfig(threshold=threshold, wrong_weight=5.0))
        assert {weight for (_, w), weight in heavy.items() if w} == ({5.0} if any(wrong) else set())
        assert {of for of, _ in heavy} == {kind}
