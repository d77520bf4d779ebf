"""A dataset row of steps that somebody else labelled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pyarrow
from datasets import Features

from data_synth.formats.source import Dropped, share
from vlprm.dataset import FEATURES, row_evidence, row_paths, tree_row
from vlprm.schema import ERROR_KINDS, ErrorKind, Problem, StepLabel, StepTree, TreeNode
from vlprm.steps import parse_step

Row = dict[str, Any]
Leaf = tuple[str | None, bool | None]  # what a solution answers, and whether that is right

_SCHEMA = Features(FEATURES).arrow_schema


def made_row(
    name: str,
    question: str,
    images: tuple[bytes, ...],
    answer: Any,
    nodes: Sequence[TreeNode],
    known: dict[int, Leaf] | None = None,
    **meta: Any,
) -> Row:
    """A row of the format `name`. Each node without children ends a solution; `known` is what is known of some.

    The id is a hash of question and images: solutions of one problem share it, in whatever file they stand.
    """
    if not nodes:
        raise Dropped("no_steps")
    parents = {node.parent for node in nodes}
    leaves = [(n, *(known or {}).get(n, (None, None))) for n in range(len(nodes)) if n not in parents]
    digest = hashlib.sha256(question.encode() + b"".join(hashlib.sha256(data).digest() for data in images))
    gold = None if answer is None else str(answer)
    problem = Problem(digest.hexdigest()[:16], name, question, images, gold, "word")
    tree = StepTree(problem.id, tuple(nodes), tuple((node, said) for node, said, _ in leaves))
    return tree_row(problem, tree, [right for _, _, right in leaves], {"rule": name, **meta})


def chain(steps: Sequence[str], labels: Sequence[StepLabel]) -> list[TreeNode]:
    """One solution as nodes. Dropped where labels and steps differ in number."""
    if len(steps) != len(labels):
        raise Dropped("label_count")
    return [TreeNode(parse_step(text), n - 1, label) for n, (text, label) in enumerate(zip(steps, labels, strict=True))]


def told(rule: str, target: float | None, error_kind: ErrorKind | None = None) -> StepLabel:
    """A value with no counts behind it."""
    return StepLabel(target=target, error_kind=error_kind, rule=rule)


def checked(row: Row) -> Row:
    """The row, if a dataset can hold it and its reader understands it: one that it cannot would stop the whole file
    when it is written, or whoever reads it. Dropped, or another error, where it is not."""
    pyarrow.Table.from_pylist([row], schema=_SCHEMA)  # of the right types, in text that UTF-8 can write
    parents, steps = row["parents"], len(row["completions"])
    if any(len(row[column]) != steps for column in ("parents", "labels", "error_kinds")):
        raise Dropped("label_count")
    if not all(-1 <= parent < n for n, parent in enumerate(parents)):  # else a path may never end
        raise Dropped("parent_value")
    if not all(0 <= leaf["node"] < steps for leaf in row["leaves"]):
        raise Dropped("leaf_value")
    if not set(row["error_kinds"]) <= {None, *ERROR_KINDS}:
        raise Dropped("error_kind_value")
    for target in row["labels"]:
        share(target)
    row_paths(row)
    if "root" in json.loads(row["meta"]):
        row_evidence(row)
    return row
