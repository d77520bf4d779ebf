"""Training critiques, made from the labels and corrections of a tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from train.reward.trees import is_wrong
from vlprm.data.dataset import LabelledPath
from vlprm.policy.critique import critique_answer, critique_of


def critiques_of(
    paths: Sequence[LabelledPath], place: Mapping[int, int], question: str, threshold: float | None = None
) -> list[tuple[int, str]]:
    """(step index, critique text) pairs: one per correct step up to a solution's first error, and one for this error if
    it has a correction. A solution's critiques end at its first step without a target."""
    found: dict[int, str] = {}
    for path in paths:
        for node, step, label, corrected in zip(path.nodes, path.steps, path.labels, path.corrected, strict=True):
            wrong = is_wrong(label, threshold)
            if label.target is None or (wrong and corrected is None):
                break
            kind, instead = (label.error_kind, corrected) if wrong else (None, None)
            found[place[node]] = critique_answer(critique_of(step, kind, instead), question)
            if wrong:
                break
    return list(found.items())
