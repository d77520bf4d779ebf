"""Flips: one step's truth changes, its image only where it says, and the same pair for the same id."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vlprm.schema import Problem
from vlprm.tasks import TASKS, load_task
from vlprm.tasks.flips import Flip, changed_step, flips
from vlprm.tasks.synthetic import Change, SyntheticFamily, truthful
from vlprm.zoom.execute import executed_steps

PROBLEMS = 4
families = pytest.mark.parametrize("family", TASKS.values(), ids=list(TASKS))


def truths(family: SyntheticFamily, problem: Problem, flip: Flip) -> list[bool | None]:
    return [verdict and verdict.correct for verdict in family.verdicts(problem, flip.steps)]


@families
def test_exactly_one_step_changes_its_truth(family: SyntheticFamily) -> None:
    """It is the last, and right where it should be; the question is the same, and the answer is that of the image."""
    kinds = set()
    for i in range(PROBLEMS):
        problem = family.problem("test", i)
        found = flips(family, problem)
        assert found
        assert len({flip.id for flip in found}) == len(found)
        for flip in found:
            right, wrong = truths(family, flip.right, flip), truths(family, flip.wrong, flip)
            assert None not in (*right, *wrong)
            assert right[:-1] == wrong[:-1]
            assert (right[-1], wrong[-1]) == (True, False)
            assert problem in (flip.right, flip.wrong)
            assert flip.original == ("right" if flip.right == problem else "wrong")
            assert flip.right.images != flip.wrong.images
            assert flip.right.id != flip.wrong.id
            for one in (flip.right, flip.wrong):
                assert family.ask(one.meta["scene"])[:2] == (flip.right.question, one.answer)
            kinds.add(flip.kind)
            if flip.reworded is not None:
                assert flip.kind == "perception"
                said = (*flip.steps[:-1], flip.reworded)
                marks = [family.verdicts(one, said)[-1] for one in (flip.right, flip.wrong)]
                assert [mark and mark.correct for mark in marks] == [False, True]
    assert "perception" in kinds


@families
def test_an_image_differs_only_where_the_change_says(family: SyntheticFamily) -> None:
    scene = family.scene("test", 0)
    before = np.array(family.draw(scene))
    changes = family.changes(scene)
    assert changes
    for change in changes:
        assert family.ask(change.scene)[0] == family.ask(scene)[0]
        differs = (np.array(family.draw(change.scene)) != before).any(axis=-1)
        assert differs.any()
        for box in change.boxes:
            spans = ((box.y0, box.y1), (box.x0, box.x1))
            rows, columns = (slice(max(0, int(low)), int(high) + 2) for low, high in spans)
            differs[rows, columns] = False
        assert not differs.any()


def test_a_pair_is_made_again_from_its_id() -> None:
    family = TASKS["count_grid"]
    first, again = (flips(family, family.problem("test", 3)) for _ in range(2))
    assert first == again
    other = flips(family, family.problem("test", 3), seed=1)
    assert [flip.id for flip in other] == [flip.id for flip in first]
    assert other != first


def test_a_reading_before_a_derived_step_stays_wrong_on_both_images() -> None:
    """A derived step changes alone only after a wrong reading, as of a solution with slips."""
    family = TASKS["count_grid"]
    derived = [flip for i in range(4) for flip in flips(family, family.problem("test", i)) if flip.kind == "reasoning"]
    assert derived
    assert all(False in truths(family, flip.right, flip)[:-1] for flip in derived)


def test_a_change_that_no_step_reads_flips_none() -> None:
    """Another colour where shapes are asked for; and a step that does not parse ends the search."""
    family = TASKS["count_grid"]
    problem = next(p for i in range(50) if (p := family.problem("test", i)).meta["question_type"] == "shape")
    steps = executed_steps(problem, family.solve(problem.meta["scene"], truthful))
    found = {changed_step(family, problem, change, steps) for change in family.changes(problem.meta["scene"])}
    assert None in found
    assert found - {None} <= {0, 1, 2}
    unread = [replace(steps[0], text="[perception] something"), *steps[1:]]
    assert {changed_step(family, problem, change, unread) for change in family.changes(problem.meta["scene"])} == {None}


def test_a_family_without_changes_has_no_flips() -> None:
    family = load_task("docs.examples.dominoes")
    assert flips(family, family.problem("test", 0)) == []
    still = replace(TASKS["chart"], changes=lambda scene: [Change(scene, ())])
    assert flips(still, still.problem("test", 0)) == []
