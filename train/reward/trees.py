"""Load the labelled solutions of each problem from a dataset, as one tree per problem, selected and cut as configured.

If a dataset has one row per solution (TRL's format, most published data), rows with the same question and images are
merged into a tree. Steps merge if their prefix, text and label are equal. If labels disagree, as two estimates of one
value do, the steps and all after them stay separate, and both labels are used. A problem with one row is unchanged.
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

Tree = Sequence[LabelledPath]  # solutions of one problem; equal node numbers are the same step


def is_wrong(label: StepLabel, threshold: float | None) -> bool:
    """Whether a label's target is at most the threshold or, without one, wrong under the label's fusion rule."""
    if threshold is None:
        return called_wrong(label)
    return label.target is not None and label.target <= threshold


def load_trees(path: Path, config: RowsConfig, threshold: float | None = None) -> list[Tree]:
    """The labelled solutions of each problem, selected and cut as configured; right and wrong ones alternate. UserError
    if `config.mixed` leaves no problem."""
    trees = _problems(path)
    chosen = [tree for tree in trees if not config.mixed or has_both(tree)]
    if not chosen:
        raise UserError(
            f"no problem of {path} has solutions known to be right and solutions known to be wrong; leave out"
            " rows.mixed"
        )
    if len(chosen) < len(trees):
        log.info("%d of %d problems have both right and wrong solutions", len(chosen), len(trees))
    taken: list[Tree] = [
        [
            learnt_from(confident(path, config.uncertain), config.after_first_error, threshold)
            for path in selected(tree, config.max_paths_per_tree)
        ]
        for tree in chosen
    ]
    log.info("%d of %d solutions of %d problems selected", sum(map(len, taken)), sum(map(len, chosen)), len(chosen))
    return taken


def has_both(tree: Tree) -> bool:
    """Whether a problem has both right and wrong solutions."""
    return {True, False} <= {path.right for path in tree}


def _problems(path: Path) -> list[Tree]:
    """The solutions of each question and images, in file order. `meta` of a problem has the number of its first row."""
    rows: dict[tuple[str, tuple[bytes, ...]], list[Tree]] = defaultdict(list)
    for number, row in enumerate(training_rows(path), 1):
        if paths := row_paths(row):
            problem = replace(paths[0].problem, meta={**paths[0].problem.meta, "row": number})
            rows[problem.question, problem.images].append([replace(one, problem=problem) for one in paths])
    return [merged(trees) for trees in rows.values()]


def merged(trees: Sequence[Tree]) -> Tree:
    """Merge several trees of one problem into one, with the first one's problem (and id)."""
    if len(trees) == 1:
        return trees[0]
    paths = [path for tree in trees for path in tree]
    nodes, _, _ = prefix_tree([[*zip(p.steps, map(_learnt, p.labels), p.corrected, strict=True)] for p in paths])
    problem = trees[0][0].problem
    return [replace(path, problem=problem, nodes=of_path) for path, of_path in zip(paths, nodes, strict=True)]


def _learnt(label: StepLabel) -> tuple[Any, ...]:
    """The parts of a label that the loss reads; a judge's reasons may differ between equal steps."""
    return label.target, label.error_kind, label.rule, label.mc_correct, label.mc_valid


def selected(tree: Tree, most: int) -> list[LabelledPath]:
    """At most `most` solutions to train on: those the dataset lists (judged ones, if there was a judge), or else those
    that a judge would read. Solutions without any target come last."""
    if named := [path for path in tree if path.place is not None]:
        return sorted(named, key=lambda path: path.place or 0)[:most]
    groups = [[path for path in tree if has_target(path) is known] for known in (True, False)]
    return [path for group in groups for path in _as_judged(group, most)][:most]


def has_target(path: LabelledPath) -> bool:
    """Whether any step of a solution has a target."""
    return any(label.target is not None for label in path.labels)


def _as_judged(tree: Tree, most: int) -> list[LabelledPath]:
    """At most `most` solutions, in the order in which a judge would read them (see vlprm.data.selection)."""
    counted = {n for path in tree for n, label in zip(path.nodes, path.labels, strict=True) if is_counted(label)}
    return [tree[i] for i in in_order([p.nodes for p in tree], [p.right for p in tree], counted, most)]


def confident(path: LabelledPath, uncertain: tuple[float, float] | None) -> LabelledPath:
    """The path without the targets between the two values; the steps stay."""
    if uncertain is None:
        return path
    low, high = uncertain
    unsure = [label.target is not None and low < label.target < high for label in path.labels]
    masked = (replace(la, target=None, error_kind=None) if u else la for la, u in zip(path.labels, unsure, strict=True))
    return replace(path, labels=tuple(masked))


def learnt_from(path: LabelledPath, after_first_error: str, threshold: float | None) -> LabelledPath:
    """The path with steps after its first wrong one removed (`stop`), without targets (`mask`) or as is (`keep`)."""
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
