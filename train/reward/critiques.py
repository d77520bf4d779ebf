"""Training critiques, made from the labels and corrections of a tree, and from the words of its judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from train.reward.config import LossConfig
from train.reward.trees import is_wrong
from vlprm.data.dataset import LabelledPath
from vlprm.policy.critique import VERDICT, StepCritique, critique_answer, critique_of
from vlprm.prompts import CritiqueTemplate


def critiques_of(
    paths: Sequence[LabelledPath], place: Mapping[int, int], template: CritiqueTemplate, loss: LossConfig
) -> list[tuple[int, str]]:
    """(step index, critique text) pairs of the paths' critiques; a step that paths share is criticised once."""
    found = {place[node]: critique_answer(said, template) for path in paths for node, said in taught(path, loss)}
    return list(found.items())


def weights_of(
    text: str, template: CritiqueTemplate, reasons: float, encode: Callable[[str], Sequence[int]]
) -> list[float]:
    """The weight of each id of a critique: `reasons` for those of its reasons, 1 for those of its verdict and
    correction."""
    ids = len(encode(text))
    if template.verdict_last:
        thought = len(encode(text[: text.rindex(f"\n{VERDICT}") + 1]))
        return [reasons] * thought + [1.0] * (ids - thought)
    verdict = len(encode(text[: text.rindex("\n") + 1]))
    return [1.0] * verdict + [reasons] * (ids - verdict)


def taught(path: LabelledPath, loss: LossConfig) -> list[tuple[int, StepCritique]]:
    """(node, critique) pairs of a solution: one per correct step up to the first error, and one for this error if it
    has a correction. They end at the first step without a target. With `loss.critiques: judge` they have the reasons
    of the first source that agrees with the label of each of these steps; without one, there are none."""
    found: list[tuple[int, StepCritique]] = []
    labels = path.labels[: known_until(path, loss.threshold)]
    source = _agreeing(path, len(labels), loss.threshold) if loss.critiques == "judge" else None
    if loss.critiques == "judge" and source is None:
        return []
    for node, step, label, corrected in zip(path.nodes, path.steps, labels, path.corrected, strict=False):
        wrong = is_wrong(label, loss.threshold)
        if wrong and corrected is None:
            break
        kind, instead = (label.error_kind, corrected) if wrong else (None, None)
        reason = "" if source is None else label.votes[source].reason.strip()
        found.append((node, critique_of(step, kind, instead, reason)))
    return found


def known_until(path: LabelledPath, threshold: float | None) -> int:
    """Number of steps up to the first wrong one, or before the first without a target."""
    for k, label in enumerate(path.labels):
        if label.target is None:
            return k
        if is_wrong(label, threshold):
            return k + 1
    return len(path.labels)


def _agreeing(path: LabelledPath, steps: int, threshold: float | None) -> str | None:
    """The first source with a reason and the label's verdict for each of the first steps (ThinkPRM's filter, arXiv
    2504.16828: a chain is kept if the verdict of every step is right)."""
    labels = path.labels[:steps]
    for source in dict.fromkeys(name for label in labels for name in label.votes):
        votes = [label.votes.get(source) for label in labels]
        if all(
            vote and vote.reason.strip() and vote.correct != is_wrong(label, threshold)
            for vote, label in zip(votes, labels, strict=True)
        ):
            return source
    return None
