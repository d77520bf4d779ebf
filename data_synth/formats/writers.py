"""Writers of other formats. Each turns one of our rows into records, and counts the evidence they cannot hold."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlprm.data.dataset import LabelledPath, row_paths, tree_row
from vlprm.data.importing import MARK, DatasetRow, Record
from vlprm.schema import StepLabel, StepTree, TreeNode

SYSTEM = (
    "You judge a solution step by step. After each step answer + if it is correct and - if it is not; after an error "
    "all steps are wrong."
)


@dataclass
class Target:
    """Threshold of hard labels (correct if above), number of rows read, and counts of lost evidence."""

    threshold: float
    rows: int = 0
    lost: Counter[str] = field(default_factory=Counter)

    def hard(self, value: float | None) -> bool | None:
        """Whether a target is above the threshold; None for no target."""
        # In float32, as a dataset stores targets: otherwise a stored 0.1 would be above a threshold of 0.1.
        return None if value is None else bool(np.float32(value) > np.float32(self.threshold))


def tree(row: DatasetRow, target: Target) -> Iterator[DatasetRow]:
    """The row unchanged."""
    yield row


def paths(row: DatasetRow, target: Target) -> Iterator[DatasetRow]:
    """One row per complete solution, with labels and evidence; shared steps are repeated. Solutions selected for
    training come first, in their order."""
    meta = json.loads(row["meta"])
    for path in sorted(row_paths(row), key=lambda path: math.inf if path.place is None else path.place):
        nodes = [TreeNode(s, n - 1, label) for n, (s, label) in enumerate(zip(path.steps, path.labels, strict=True))]
        (answer,) = [leaf["answer"] for leaf in row["leaves"] if leaf["node"] == path.nodes[-1]]
        chain = StepTree(row["id"], tuple(nodes), ((len(nodes) - 1, answer),), _root(meta))
        problem = dataclasses.replace(path.problem, meta={})
        named = {"solutions": [] if path.place is None else [len(nodes) - 1]} if "solutions" in meta else {}
        yield tree_row(problem, chain, [path.right], {**meta, **named})


def trl(row: DatasetRow, target: Target) -> Iterator[Record]:
    """TRL's stepwise format, one record per solution: prompt, completions, labels (true, false, null) and images."""
    for path in row_paths(row):
        if _spells_mark([row["prompt"]], target):
            continue
        _count_lost(path, target)
        yield {
            "prompt": row["prompt"],
            "completions": [step.text for step in path.steps],
            "labels": [target.hard(label.target) for label in path.labels],
            "images": row["images"],
        }


def chat(row: DatasetRow, target: Target) -> Iterator[Record]:
    """Chat format of VL-PRM300K and VisualPRM400K: one step per user turn, answered by + or -, up to the last label.

    One image mark per image precedes the question; readers of this format count the marks in all turns."""
    question = f"{MARK}\n" * len(row["images"]) + row["prompt"]
    for path in row_paths(row):
        if _spells_mark([row["prompt"], *(step.text for step in path.steps)], target):
            continue
        _count_lost(path, target)
        labelled = [n for n, label in enumerate(path.labels) if label.target is not None]
        if not labelled or labelled != list(range(len(labelled))):
            target.lost["solutions with a gap in their labels"] += 1
            continue
        turns = [{"role": "system", "content": SYSTEM}]
        for n in labelled:
            text = path.steps[n].text
            first = f"### Question:\n{question}\n\n### Solution Process:\n" if n == 0 else ""
            sign = "+" if target.hard(path.labels[n].target) else "-"
            turns += [{"role": "user", "content": first + text}, {"role": "assistant", "content": sign}]
        target.lost["steps without a label"] += len(path.steps) - len(labelled)
        yield {"id": row["id"], "images": row["images"], "conversations": turns, "answer": row["answer"]}


WRITERS = {"vlprm": tree, "vlprm_paths": paths, "trl": trl, "chat": chat}


def _root(meta: dict[str, Any]) -> StepLabel:
    known = {key: value for key, value in meta.get("root", {}).items() if key in ("mc_correct", "mc_valid", "mc_total")}
    return StepLabel(**known)


def _spells_mark(texts: Sequence[str], target: Target) -> bool:
    """Whether a text spells an image mark, which a reader would take for one; counts the solution as lost."""
    spelt = any(MARK in text for text in texts)
    target.lost[f"solutions that spell {MARK}"] += spelt
    return spelt


def _count_lost(path: LabelledPath, target: Target) -> None:
    labels: Sequence[StepLabel] = path.labels
    target.lost["counts"] += sum(label.mc_total > 0 for label in labels)
    target.lost["verdicts"] += sum(bool(label.votes) for label in labels)
    target.lost["error kinds"] += sum(label.error_kind is not None for label in labels)
    target.lost["soft values"] += sum(label.target not in (None, 0.0, 1.0) for label in labels)
