"""The search trees of a step-label dataset as problems of a page."""

from __future__ import annotations

import bisect
import itertools
import json
from pathlib import Path
from typing import Any

from vlprm.data.dataset import open_parquet
from vlprm.labels.fusion import called_wrong
from vlprm.schema import Region, StepLabel, from_json
from vlprm.steps import step_kind
from vlprm.viewer.views import Problems, ProblemView, StepView, TreeStepView


class LabelledTrees(Problems):
    """The trees of a dataset file. Only one row group is in memory at a time."""

    def __init__(self, path: Path) -> None:
        self._file = open_parquet(path)
        metadata = self._file.metadata
        sizes = (metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        self._firsts = list(itertools.accumulate(sizes, initial=0))  # the first row of each group, and the end
        self._read: tuple[int, list[dict[str, Any]]] = (-1, [])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def view(self, at: int) -> ProblemView:
        """The tree at this row."""
        return tree_view(self._row(at))

    def images(self, at: int) -> tuple[bytes, ...]:
        """The encoded images of the tree at this row."""
        return tuple(image["bytes"] for image in self._row(at)["images"])

    def _row(self, at: int) -> dict[str, Any]:
        group = bisect.bisect_right(self._firsts, at) - 1
        if self._read[0] != group:
            self._read = group, self._file.read_row_group(group).to_pylist()
        row: dict[str, Any] = self._read[1][at - self._firsts[group]]
        return row


def tree_view(row: dict[str, Any]) -> ProblemView:
    """A row of the dataset (see `vlprm.data.dataset`) as a problem of a page."""
    meta = json.loads(row["meta"])
    columns = (row["completions"], row["parents"], row["labels"], row["error_kinds"], json.loads(row["evidence"]))
    return ProblemView(
        id=row["id"],
        benchmark=meta["task"],
        question_type=str(meta.get("question_type", "")),
        question=row["prompt"],
        answer=row["answer"],
        n_images=len(row["images"]),
        tree=tuple(_step(*columns_of_step) for columns_of_step in zip(*columns, strict=True)),
    )


def _step(text: str, parent: int, target: float | None, kind: str | None, evidence: dict[str, Any]) -> TreeStepView:
    label = from_json(StepLabel, evidence["label"])
    judge = label.said(correct=not called_wrong(label)) or next(iter(label.votes.values()), None)
    step = StepView(
        text=text,
        kind=step_kind(text),
        reward=target,
        correct=judge.correct if judge else None,
        error_kind=kind,
        said=judge.reason if judge else "",
        correction=judge.correction if judge else "",
        region=evidence["region"] and from_json(Region, evidence["region"]),
    )
    return TreeStepView(step, parent, label.mc_correct, label.mc_valid)
