"""A dataset row of steps that somebody else labelled."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from data_synth.formats.source import Dropped
from vlprm.dataset import tree_row
from vlprm.schema import ErrorKind, Problem, StepLabel, StepTree, TreeNode
from vlprm.steps import parse_step

Row = dict[str, Any]
Leaf = tuple[str | None, bool | None]  # what a solution answers, and whether that is right


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
