"""Pairs of images that differ in one fact, so that exactly one step of a solution changes its truth.

A solution of a drawn problem is cut after the step whose truth changes with the image; the steps before keep theirs. A
model that looks at the image must reward the last step more on the image on which it is right. (EM-PRM asks this of
edited images of real scenes; a drawn scene has exact truths.)

Solutions are written by the family's solver, without errors and with slips: the truth of a derived step changes alone
only if a reading before it is wrong on both images.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from vlprm.images import png
from vlprm.schema import ErrorKind, Problem, Region, Step, StepKind, Verdict
from vlprm.steps import parse_step
from vlprm.tasks.scene import rng_for
from vlprm.tasks.synthetic import Change, SyntheticFamily, Writer, truthful
from vlprm.zoom.execute import executed_steps

SOLUTIONS = 8  # per problem: one without errors, the others with slips
SLIPS = 0.3  # probability that a claim of such a solution is wrong


@dataclass(frozen=True)
class Flip:
    """A solution that ends with the step whose truth changes, and two problems that differ in their image alone.

    `right` has the image on which the last step is right, `wrong` the one on which it is wrong; `original` says which
    of them is the family's own item. `reworded`: for a reading, the step that states what the other image shows, so
    that it is wrong on `right`. `boxes`: where alone the two images differ.
    """

    id: str
    right: Problem
    wrong: Problem
    original: str
    steps: tuple[Step, ...]
    reworded: Step | None
    boxes: tuple[Region, ...]

    @property
    def kind(self) -> StepKind:
        """The kind of the step."""
        return self.steps[-1].kind


def flips(family: SyntheticFamily, problem: Problem, seed: int = 0) -> list[Flip]:
    """One pair for each kind of step that has one; depends only on the problem's id and the seed. Empty for a family
    without `changes`."""
    rng = rng_for("flips", seed, problem.id)
    scene = problem.meta["scene"]
    changes = [change for change in family.changes(scene) if family.ask(change.scene)[0] == problem.question]
    found: dict[StepKind, list[tuple[tuple[Step, ...], Change]]] = {}
    for steps in _solutions(family, problem, rng) if changes else ():
        for change in rng.sample(changes, len(changes)):
            if (k := changed_step(family, problem, change, steps)) is not None:
                found.setdefault(steps[k].kind, []).append((steps[: k + 1], change))
    return [_flip(family, problem, *rng.choice(pairs)) for _, pairs in sorted(found.items())]


def changed_step(family: SyntheticFamily, problem: Problem, change: Change, steps: Sequence[Step]) -> int | None:
    """The first step whose truth changes with the scene; None if there is none, or if it or a step before it has no
    truth."""
    before = family.verdicts(problem, steps)
    after = family.verdicts(_with(problem, change), steps)
    for k, (old, new) in enumerate(zip(before, after, strict=True)):
        if old is None or new is None:
            return None
        if old.correct != new.correct:
            return k
    return None


def _solutions(family: SyntheticFamily, problem: Problem, rng: random.Random) -> list[tuple[Step, ...]]:
    writers = [truthful, *[_careless(rng)] * (SOLUTIONS - 1)]
    texts = dict.fromkeys(tuple(family.solve(problem.meta["scene"], writer)) for writer in writers)
    return [executed_steps(problem, written) for written in texts]


def _careless(rng: random.Random) -> Writer:
    def write(kind: ErrorKind, concept: str, truth: Any, near: Sequence[Any]) -> Any:
        return rng.choice(near) if near and rng.random() < SLIPS else truth

    return write


def _with(problem: Problem, change: Change) -> Problem:
    return replace(problem, meta={**problem.meta, "scene": change.scene})


def _flip(family: SyntheticFamily, problem: Problem, steps: tuple[Step, ...], change: Change) -> Flip:
    kind = steps[-1].kind
    name = f"{problem.id}/{kind}"
    changed = replace(
        _with(problem, change), id=f"{name}/changed", images=(png(family.draw(change.scene)),),
        answer=family.ask(change.scene)[1],
    )  # fmt: skip
    right_first = _last(family, problem, steps).correct
    right, wrong, original = (problem, changed, "right") if right_first else (changed, problem, "wrong")
    return Flip(name, right, wrong, original, steps, _reworded(family, right, wrong, steps), change.boxes)


def _reworded(family: SyntheticFamily, right: Problem, wrong: Problem, steps: tuple[Step, ...]) -> Step | None:
    text = family.solved_step(wrong, steps, truthful) if steps[-1].kind == "perception" else None
    step = None if text is None else parse_step(text)
    return step if step is not None and not _last(family, right, (*steps[:-1], step)).correct else None


def _last(family: SyntheticFamily, problem: Problem, steps: Sequence[Step]) -> Verdict:
    verdict = family.verdicts(problem, steps)[-1]
    assert verdict is not None, f"{problem.id}: the last step does not parse"
    return verdict
