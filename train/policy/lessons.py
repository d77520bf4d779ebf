"""Training data of the built-in models: solved problems of the training split and, for a backbone, corrected drafts.

A *solving* lesson is a problem and the teacher's steps. A *proofreading* lesson is a problem and a draft solution that
ends at a wrong step, which is corrected in the same line:

    [perception] row 1: red none blue (wrong: [perception] row 1: red red blue)

Wrong steps carry no loss, so a backbone learns to notice errors but not to write them. Errors of drafts are drawn
uniformly from plausible confusions, independent of any policy, its blind spots and step labels.
"""

from __future__ import annotations

import dataclasses
import difflib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.utils.data import Dataset

from train.reward.losses import IGNORE
from vlprm.errors import UserError
from vlprm.model.inputs import InputBuilder
from vlprm.model.packing import PackedRow
from vlprm.schema import ErrorKind, Problem, Step
from vlprm.steps import step_kind
from vlprm.tasks.scene import rng_for
from vlprm.tasks.synthetic import SyntheticFamily, Writer, truthful
from vlprm.zoom.execute import executed_steps

V = TypeVar("V")

DRAFT_SLIP_RATES = (0.03, 0.1, 0.3)
FIRST_PROBLEMS = 400  # have all concepts of the built-in families
SWAPPED = 0.5  # share of drafts with one word from another problem's solution


@dataclass(frozen=True)
class Curriculum:
    """Families and teacher of the lessons. Lesson `i` is the same in every run. Families alternate; the lessons of a
    problem (one solving, `proofread` proofreading) are consecutive."""

    families: tuple[SyntheticFamily, ...]
    proofread: int
    blind_spots: Mapping[str, float]
    slip_rate: float
    seed: int


@dataclass(frozen=True)
class Lesson:
    """Steps of a problem, which of them are wrong, and the correction of the last one."""

    problem: Problem
    steps: tuple[Step, ...]
    wrong: tuple[bool, ...]
    correction: str | None = None

    @property
    def corrected_steps(self) -> tuple[Step, ...]:
        """The steps with the correction appended to the last; after a zoom, it follows the crop as a separate step."""
        if self.correction is None:
            return self.steps
        last, note = self.steps[-1], f" (wrong: {self.correction})"
        if last.ends_turn:
            return (*self.steps, Step("other", note))
        return (*self.steps[:-1], dataclasses.replace(last, text=last.text + note))


class Lessons(Dataset[PackedRow]):
    """Lessons as rows, made on demand. `written_in` of a row says which ids carry a loss."""

    def __init__(self, curriculum: Curriculum, inputs: InputBuilder, size: int) -> None:
        self.curriculum, self.inputs, self.size = curriculum, inputs, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> PackedRow:
        return lesson_row(lesson(self.curriculum, index), self.inputs)


def lesson(curriculum: Curriculum, index: int, drawn: bool = True) -> Lesson:
    """Lesson `index` of a curriculum. `drawn=False`: its problem has no images, and the steps are the same; faster."""
    number, draft = divmod(index, 1 + curriculum.proofread)
    family = curriculum.families[number % len(curriculum.families)]
    problem = family.problem("train", number, drawn)
    if draft:
        return _proofreading(family, problem, rng_for("draft", curriculum.seed, problem.id, draft))
    texts = family.solve(problem.meta["scene"], teacher(curriculum, problem.id))
    return Lesson(problem, _executed(family, problem, texts), (False,) * len(texts))


def _executed(family: SyntheticFamily, problem: Problem, texts: Sequence[str]) -> tuple[Step, ...]:
    """The steps with their zooms executed, for which a problem without images is drawn."""
    zooms = any(step_kind(text) == "zoom" for text in texts)
    return executed_steps(problem if problem.images or not zooms else family.problem_by_id(problem.id), texts)


def refuse_unknown_concepts(curriculum: Curriculum) -> None:
    """UserError if no solution of the first problems has the concept of a blind spot, which would have no effect."""
    if not curriculum.blind_spots:
        return
    known: set[str] = set()

    def note(kind: ErrorKind, concept: str, truth: V, near: Sequence[V]) -> V:
        known.add(concept)
        return truth

    for family in curriculum.families:
        for number in range(FIRST_PROBLEMS):
            family.solve(family.scene("train", number), note)
    if unknown := sorted(curriculum.blind_spots.keys() - known):
        nearest = difflib.get_close_matches(unknown[0], known, n=3) or sorted(known)[:3]
        raise UserError(f"no step of the families is about {unknown[0]!r} (blind_spots); {', '.join(nearest)} would do")


def teacher(curriculum: Curriculum, problem_id: str) -> Writer:
    """The teacher of a problem: it errs at the declared rates, with the same errors in every run."""
    if not curriculum.blind_spots and not curriculum.slip_rate:
        return truthful
    return _careless(rng_for("teacher", curriculum.seed, problem_id), curriculum.blind_spots, curriculum.slip_rate)


def _careless(rng: random.Random, blind_spots: Mapping[str, float], slip_rate: float) -> Writer:
    """Blind spots are consistent within a solution: if one orange cell is read as red, all of them are."""
    blind_today = {concept: rng.random() < rate for concept, rate in blind_spots.items()}

    def write(kind: ErrorKind, concept: str, truth: V, near: Sequence[V]) -> V:
        if not near:
            return truth
        if concept in blind_today:
            return near[0] if blind_today[concept] else truth
        return rng.choice(near) if rng.random() < slip_rate else truth

    return write


def _proofreading(family: SyntheticFamily, problem: Problem, rng: random.Random) -> Lesson:
    scene = problem.meta["scene"]
    texts = family.solve(scene, _careless(rng, {}, rng.choice(DRAFT_SLIP_RATES)))
    if rng.random() < SWAPPED:
        texts = _with_swapped_word(family, scene, texts, rng)
    steps = _executed(family, problem, texts)
    wrong = tuple(v is None or not v.correct for v in family.verdicts(problem, steps))
    if not any(wrong):
        return Lesson(problem, steps, wrong)
    faults = [k for k, is_wrong in enumerate(wrong) if is_wrong]
    fault = faults[0] if rng.random() < 0.5 else rng.choice(faults)
    right = family.solve(scene, truthful)[fault]
    return Lesson(problem, steps[: fault + 1], wrong[: fault + 1], right)


def _with_swapped_word(family: SyntheticFamily, scene: Any, texts: list[str], rng: random.Random) -> list[str]:
    """Replace one word by the word at the same place in the solution of another problem of the same question type."""
    for _ in range(8):
        other = family.scene("train", rng.randrange(1 << 30))
        if other["content"]["type"] == scene["content"]["type"]:
            others = family.solve(other, truthful)
            break
    else:
        return texts
    places = [
        (k, w)
        for k, (mine, theirs) in enumerate(zip(texts, others, strict=False))
        for w, (word, another) in enumerate(zip(mine.split(" "), theirs.split(" "), strict=False))
        if word != another and not mine.startswith("[zoom]")
    ]
    if not places:
        return texts
    k, w = rng.choice(places)
    words = texts[k].split(" ")
    words[w] = others[k].split(" ")[w]
    return [*texts[:k], " ".join(words), *texts[k + 1 :]]


def lesson_row(taught: Lesson, inputs: InputBuilder) -> PackedRow:
    """The row of a finished lesson. A wrong step carries no loss, nor does the separator before it, nor the id after it
    unless the step is corrected."""
    row = inputs.row(taught.problem, taught.corrected_steps, closed=True)
    written = list(row.written_in)
    ends = inputs.row(taught.problem, taught.steps).step_ends
    starts = (written.index(0), *(end + 1 for end in ends))
    for k, (start, end) in enumerate(zip(starts, ends, strict=False)):
        if taught.wrong[k]:
            silent = end + (1 if k == len(ends) - 1 else 2)
            written[start:silent] = [-1] * (silent - start)
    return dataclasses.replace(row, written_in=tuple(written))


def batch_lessons(rows: Sequence[PackedRow], inputs: InputBuilder) -> dict[str, torch.Tensor]:
    """The padded batch, with `labels` (B, T): ids that carry a loss, IGNORE elsewhere."""
    batch = inputs.batch(rows)
    labels_BT = torch.full_like(batch["input_ids"], IGNORE)
    for b, row in enumerate(rows):
        written = torch.tensor(row.written_in) >= 0
        labels_BT[b, : len(row.ids)][written] = batch["input_ids"][b, : len(row.ids)][written]
    return {**batch, "labels": labels_BT}
