"""What a reward model is shown of a step benchmark: images (the problem's own, none, or another problem's), the words
of steps, the steps before. If its numbers do not change, the model ignores what is missing."""

from __future__ import annotations

from collections.abc import Sequence

from eval.step_scores.config import ImageMode
from vlprm.data.ablation import History, Words, ablated, apart, unseen
from vlprm.errors import RecordError, UserError
from vlprm.schema import Step
from vlprm.step_benchmarks.labelled import LabelledSet, LabelledSolution

Names = tuple[str, ...]


class Shown:
    """The images and the steps of each solution, as a model is shown them. If a problem's own images cannot be opened,
    it fails in every mode, so that all modes are measured on the same solutions. UserError if the benchmark has no
    images to change."""

    def __init__(
        self,
        labelled: LabelledSet,
        solutions: Sequence[LabelledSolution],
        images: ImageMode,
        words: Words = "kept",
        history: History = "kept",
    ) -> None:
        self._open, self._images, self._words, self._history = labelled.open_images, images, words, history
        self._of_group: dict[str, list[Names]] = {}
        for solution in solutions:
            names = self._of_group.setdefault(solution.group, [])
            if solution.images and solution.images not in names:
                names.append(solution.images)
        if images != "kept" and not any(self._of_group.values()):
            raise UserError(f"the benchmark has no images, so none can be {images}; set images to kept")

    def images_of(self, solution: LabelledSolution) -> tuple[bytes, ...]:
        """Encoded image files. RecordError if one is missing, or if there is none to swap it with."""
        own = self._open(solution.images)
        if self._images == "removed":
            return ()
        return self._others(solution) if self._images == "swapped" and own else own

    def parts_of(self, solution: LabelledSolution) -> list[tuple[Step, ...]]:
        """The sequences of steps that are scored, whose scores in order are those of the solution's steps. Without
        images, zooms have no region."""
        steps = ablated(solution.steps, self._words)
        if self._images == "removed":
            steps = unseen(steps)
        return apart(steps, self._history)

    def _others(self, solution: LabelledSolution) -> tuple[bytes, ...]:
        """The images of the group's next problem with other, readable images."""
        names = self._of_group[solution.group]
        start = names.index(solution.images) + 1
        for other in names[start:] + names[: start - 1]:
            try:
                return self._open(other)
            except RecordError:
                continue
        raise RecordError("no_other_image")
