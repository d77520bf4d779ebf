"""Ground-truth correctness of labelled steps, for tasks that know it."""

from __future__ import annotations

from collections.abc import Sequence

from vlprm.data.dataset import LabelledPath
from vlprm.schema import StepLabel, Verdict
from vlprm.tasks import Tasks, task_of


def labels_and_truth(tree: Sequence[LabelledPath], tasks: Tasks) -> dict[int, tuple[StepLabel, Verdict]]:
    """Label and true verdict by node, for the steps of each path up to its first true error or its first step without a
    known truth. The last step of a path is left out, because its label is the answer's."""
    found: dict[int, tuple[StepLabel, Verdict]] = {}
    for path in tree:
        verdicts = task_of(path.problem.task, tasks).verdicts(path.problem, path.steps)
        for node, label, verdict in zip(path.nodes[:-1], path.labels, verdicts, strict=False):
            if verdict is None:
                break
            found[node] = (label, verdict)
            if not verdict.correct:
                break
    return found
