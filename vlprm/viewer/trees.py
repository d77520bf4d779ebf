"""The search trees of a step-label dataset as problems of a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vlprm.data.row_file import TableFile
from vlprm.labels.fusion import called_wrong
from vlprm.schema import Region, StepLabel, from_json
from vlprm.steps import step_kind
from vlprm.viewer.views import Problems, ProblemView, StepView, TreeStepView


class LabelledTrees(Problems):
    """The trees of a dataset file, or at most `most` of them, evenly spaced. A few row groups are in memory."""

    def __init__(self, path: Path, most: int | None = None) -> None:
        self._file = TableFile(path)
        self.total = sum(rows for rows, _ in self._file.groups)
        self._len: int = self.total if most is None else min(self.total, most)

    def __len__(self) -> int:
        return self._len

    def view(self, at: int) -> ProblemView:
        """The tree at this row."""
        return tree_view(self._row(at))

    def images(self, at: int) -> tuple[bytes, ...]:
        """The encoded images of the tree at this row."""
        return tuple(image["bytes"] for image in self._row(at)["images"])

    def _row(self, at: int) -> dict[str, Any]:
        return self._file.row(at * self.total // self._len)


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
