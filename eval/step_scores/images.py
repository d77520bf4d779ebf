"""What a reward model is shown of a benchmark's images: their own, none, or another problem's. A model whose numbers
stay what they were has not looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from eval.step_scores.config import ImageMode
from vlprm.errors import RecordError, UserError
from vlprm.schema import Step
from vlprm.step_benchmarks.labelled import LabelledSet, LabelledSolution

Names = tuple[str, ...]


class Images:
    """The images that each solution is shown. A problem whose own images cannot be opened has none in any mode, so that
    the three are measured on the same solutions. UserError where there are no images to take away."""

    def __init__(self, labelled: LabelledSet, solutions: Sequence[LabelledSolution], mode: ImageMode) -> None:
        self._open, self._mode = labelled.open_images, mode
        self._of_group: dict[str, list[Names]] = {}
        for solution in solutions:
            names = self._of_group.setdefault(solution.group, [])
            if solution.images and solution.images not in names:
                names.append(solution.images)
        if mode != "kept" and not any(self._of_group.values()):
            raise UserError(f"the benchmark has no images; nothing can be {mode}")

    def of(self, solution: LabelledSolution) -> tuple[bytes, ...]:
        """Encoded files. Dropped where there is no image, or none to swap it with."""
        own = self._open(solution.images)
        if self._mode == "removed":
            return ()
        return self._others(solution) if self._mode == "swapped" and own else own

    def steps_of(self, solution: LabelledSolution) -> tuple[Step, ...]:
        """A zoom that has no image to look at shows nothing."""
        if self._mode == "removed":
            return tuple(replace(step, region=None) for step in solution.steps)
        return solution.steps

    def _others(self, solution: LabelledSolution) -> tuple[bytes, ...]:
        """Those of the next problem of the group that has other images, which can be opened."""
        names = self._of_group[solution.group]
        start = names.index(solution.images) + 1
        for other in names[start:] + names[: start - 1]:
            try:
                return self._open(other)
            except RecordError:
                continue
        raise RecordError("no_other_image")
