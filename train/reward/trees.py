"""Dataset file -> the labelled solutions of each problem, as one tree, cut and selected as the config says.

Where a dataset has a row for each solution (TRL's format, most data of the field), the rows of one question and images
are merged into a tree: steps are one where all before them are, and their text and their label are the same. Labels
that disagree, as two estimates of the same value do, are both learnt: such steps stand apart, and so does what follows
them. A problem that has one row stays as it was written.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from train.reward.config import RowsConfig
from vlprm.data.dataset import LabelledPath, row_paths
from vlprm.data.prefix_tree import prefix_tree
from vlprm.data.selection import in_order, is_counted
from vlprm.data.trl_format import training_rows
from vlprm.errors import UserError
from vlprm.labels.fusion import called_wrong
from vlprm.schema import StepLabel

log = logging.getLogger(__name__)

Tree = Sequence[LabelledPath]  # solutions of one problem; nodes that they share are one step


def is_wrong(label: StepLabel, threshold: float | None) -> bool:
    """Whether a label calls its step wrong: by a threshold, or else by the rule that made it."""
    if threshold is None:
        return called_wrong(label)
    return label.target is not None and label.target <= threshold


def load_trees(path: Path, config: RowsConfig, threshold: float | None = None) -> list[Tree]:
    """Labelled solutions of each problem, right and wrong ones taking turns, as the config cuts and selects them.
    UserError where it selects none."""
    trees = _problems(path)
    chosen = [tree for tree in trees if not config.mixed or has_both(tree)]
    if not chosen:
        raise UserError(
            f"no problem of {path} has solutions that are known to be right and others that are known to be wrong;"
            " leave out rows.mixed"
        )
    if len(chosen) < len(trees):
        log.info("%d of %d problems have right and wrong solutions", len(chosen), len(trees))
    taken: list[Tree] = [
        [learnt_from(p, config.after_first_error, threshold) for p in selected(tree, config.max_paths_per_tree)]
        for tree in chosen
    ]
    log.info("%d of %d solutions of %d problems are taken", sum(map(len, taken)), sum(map(len, chosen)), len(chosen))
    return taken


def has_both(tree: Tree) -> bool:
    """Whether a problem has right and wrong solutions."""
    return {True, False} <= {path.right for path in tree}


def _problems(path: Path) -> list[Tree]:
    """The solutions of each question about the same images, in the order of the file."""
    rows: dict[tuple[str, tuple[bytes, ...]], list[Tree]] = defaultdict(list)
    for row in training_rows(path):
        if paths := row_paths(row):
            rows[paths[0].problem.question, paths[0].problem.images].append(paths)
    return [merged(trees) for trees in rows.values()]


def merged(trees: Sequence[Tree]) -> Tree:
    """The solutions of several trees of one problem as one tree, which is named as the first of them."""
    if len(trees) == 1:
        return trees[0]
    paths = [path for tree in trees for path in tree]
    nodes, _, _ = prefix_tree([[*zip(p.steps, map(_learnt, p.labels), p.corrected, strict=True)] for p in paths])
    problem = trees[0][0].problem
    return [replace(path, problem=problem, nodes=of_path) for path, of_path in zip(paths, nodes, strict=True)]


def _learnt(label: StepLabel) -> tuple[Any, ...]:
    """The parts of a label that a loss reads. A judge's reasons may differ between equal steps."""
    return label.target, label.error_kind, label.rule, label.mc_correct, label.mc_valid


def selected(tree: Tree, most: int) -> list[LabelledPath]:
    """The solutions that are learnt from: those that the dataset names, which a judge has read where there was one, or
    those that it would have read."""
    if named := [path for path in tree if path.place is not None]:
        return sorted(named, key=lambda path: path.place or 0)[:most]
    counted = {n for path in tree for n, label in zip(path.nodes, path.labels, strict=True) if is_counted(label)}
    return [tree[i] for i in in_order([p.nodes for p in tree], [p.right for p in tree], counted, most)]


def learnt_from(path: LabelledPath, after_first_error: str, threshold: float | None) -> LabelledPath:
    """The path with what comes after its first wrong step left out (`stop`), without targets (`mask`), or as it is."""
    wrong = [is_wrong(label, threshold) for label in path.labels]
    if after_first_error == "keep" or True not in wrong:
        return path
    end = wrong.index(True) + 1
    if after_first_error == "stop":
        return replace(
            path,
            steps=path.steps[:end],
            nodes=path.nodes[:end],
            labels=path.labels[:end],
            corrected=path.corrected[:end],
        )
    masked = tuple(replace(label, target=None, error_kind=None) for label in path.labels[end:])
    return replace(path, labels=path.labels[:end] + masked)
