"""Which critiques a model learns to write, from the labels of a tree and the corrections in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlprm.critique import critique_of, critique_text
from vlprm.dataset import LabelledPath
from vlprm.fusion import called_wrong


def critiques_of(paths: Sequence[LabelledPath], place: Mapping[int, int]) -> list[tuple[int, str]]:
    """After which step, by its place, which critique stands: of each solution that is right throughout, and of those
    whose first wrong step the policy also wrote rightly. Solutions with a step of unknown truth before are left out."""
    found: dict[int, str] = {}
    for path in paths:
        wrong = [called_wrong(label) for label in path.labels]
        end = wrong.index(True) if True in wrong else len(wrong) - 1
        corrected = path.corrected[end] if wrong[end] else None
        known = all(label.target is not None for label in path.labels[: end + 1])
        if known and (corrected is not None or not wrong[end]):
            critique = critique_of(path.steps[: end + 1], path.labels[end].error_kind, corrected)
            found[place[path.nodes[-1]]] = critique_text(critique)
    return list(found.items())
