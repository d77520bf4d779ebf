"""The images that a reward model sees on a step benchmark: the problem's own, none, or another problem's. If its
numbers do not change, the model ignores the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from eval.step_scores.config import ImageMode
from vlprm.errors import RecordError, UserError
from vlprm.schema import Step
from vlprm.step_benchmarks.labelled import LabelledSet, LabelledSolution

Names = tuple[str, ...]


class Images:
    """The images of each solution. If a problem's own images cannot be opened, it fails in every mode, so that all
    modes are measured on the same solutions. UserError if the benchmark has no images to change."""

    def __init__(self, labelled: LabelledSet, solutions: Sequence[LabelledSolution], mode: ImageMode) -> None:
        self._open, self._mode = labelled.open_images, mode
        self._of_group: dict[str, list[Names]] = {}
        for solution in solutions:
            names = self._of_group.setdefault(solution.group, [])
            if solution.images and solution.images not in names:
                names.append(solution.images)
        if mode != "kept" and not any(self._of_group.values()):
            raise UserError(f"the benchmark has no images, so none can be {mode}; set images to kept")

    def of(self, solution: LabelledSolution) -> tuple[bytes, ...]:
        """Encoded image files. RecordError if one is missing, or if there is none to swap it with."""
        own = self._open(solution.images)
        if self._mode == "removed":
            return ()
        return self._others(solution) if self._mode == "swapped" and own else own

    def steps_of(self, solution: LabelledSolution) -> tuple[Step, ...]:
        """The steps; without images, zooms have no region."""
        if self._mode == "removed":
            return tuple(replace(step, region=None) for step in solution.steps)
        return solution.steps

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
