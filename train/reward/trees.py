"""The labelled solutions of a problem as one tree, selected and cut as configured.

If a dataset has one row per solution (TRL's format, most published data), rows with the same question and images are
merged into a tree. Steps merge if their prefix, text and label are equal. If labels disagree, as two estimates of one
value do, the steps and all after them stay separate, and both labels are used. A problem with one row is unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from train.reward.config import RowsConfig
from vlprm.data.ablation import ablated, unseen
from vlprm.data.dataset import LabelledPath, row_paths
from vlprm.data.importing import DatasetRow
from vlprm.data.prefix_tree import prefix_tree
from vlprm.data.selection import in_order, is_counted
from vlprm.labels.fusion import called_wrong
from vlprm.schema import StepLabel

Tree = Sequence[LabelledPath]  # solutions of one problem; equal node numbers are the same step


def is_wrong(label: StepLabel, threshold: float | None) -> bool:
    """Whether a label's target is at most the threshold or, without one, wrong under the label's fusion rule."""
    if threshold is None:
        return called_wrong(label)
    return label.target is not None and label.target <= threshold


def has_both(tree: Tree) -> bool:
    """Whether a problem has both right and wrong solutions."""
    return {True, False} <= {path.right for path in tree}


def tree_of(rows: Iterable[tuple[int, DatasetRow]]) -> Tree:
    """All solutions of a problem from its rows, which are numbered from 1; empty if there are none. `meta` of the
    problem has the number of its first row with a solution."""
    trees: list[Tree] = []
    for number, row in rows:
        if paths := row_paths(row):
            problem = replace(paths[0].problem, meta={**paths[0].problem.meta, "row": number})
            trees.append([replace(one, problem=problem) for one in paths])
    return merged(trees) if trees else []


def learnt_tree(tree: Tree, config: RowsConfig, threshold: float | None = None) -> Tree:
    """The solutions of a problem that training takes, selected and cut as configured; right and wrong ones
    alternate."""
    taken = (confident(path, config.uncertain) for path in selected(tree, config.max_paths_per_tree))
    learnt = [learnt_from(path, config.after_first_error, threshold) for path in taken]
    shown = [replace(path, steps=ablated(path.steps, config.words)) for path in learnt]
    if config.images == "removed":
        shown = [replace(path, problem=replace(path.problem, images=()), steps=unseen(path.steps)) for path in shown]
    return shown if config.history == "kept" else [one for path in shown for one in _alone(path)]


def _alone(path: LabelledPath) -> list[LabelledPath]:
    """Each step as a solution of its own."""
    of_step = zip(path.steps, path.nodes, path.labels, strict=True)
    return [replace(path, steps=(step,), nodes=(node,), labels=(label,), corrected=()) for step, node, label in of_step]


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
