"""Common parts of the drawn families: items by id, splits without common scenes, and the ground truth of every step.

A family is one `SyntheticFamily`: it makes a scene, draws it, asks a question, writes a solution, and parses what a
step claims. A *scene* is a JSON object: `content` is what is shown and asked, `layout` is jitter. Items with equal
content are the same scene, whatever their layout; a scene belongs to exactly one split.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from PIL import Image

from vlprm.answers import extract_answer
from vlprm.errors import UserError
from vlprm.images import png
from vlprm.schema import AnswerType, ErrorKind, Problem, Region, Step, Verdict
from vlprm.steps import parse_step
from vlprm.tasks.scene import rng_for

Scene = dict[str, Any]
V = TypeVar("V")

SPLIT_BUCKETS = {"train": range(0, 14), "validation": range(14, 16), "test": range(16, 20)}


class Writer(Protocol):
    """Chooses what a solution claims. A truthful writer returns `truth`; a careless one may return an item of `near`.

    `concept` names what is read or derived ("colour orange", "sum with carry"), so that a writer can have blind spots.
    `near` are plausible confusions without `truth`, most likely first.
    """

    def __call__(self, kind: ErrorKind, concept: str, truth: V, near: Sequence[V]) -> V: ...


def truthful(kind: ErrorKind, concept: str, truth: V, near: Sequence[V]) -> V:
    """The writer that always returns the truth."""
    return truth


@dataclass(frozen=True)
class Claim:
    """The claim of one step. `key` names the fact; `said` is the step's value for it and `true` the scene's.

    `implied` is the value that follows from earlier statements, for a derived fact; None for a fact read off the image.
    `perceived` is the error kind of a wrong reading. `parts`: what a reading says and what is true of each value, in
    the order of the text (`vlprm.tasks.spans`).
    """

    key: str
    said: Any
    true: Any
    implied: Any = None
    perceived: ErrorKind = "perception"
    parts: tuple[tuple[str, str], ...] = ()

    @property
    def is_reading(self) -> bool:
        """Whether the fact is read off the image, not derived."""
        return self.implied is None


@dataclass(frozen=True)
class Change:
    """A scene with one fact of another changed, for the same question. `boxes`: where its image may differ."""

    scene: Scene
    boxes: tuple[Region, ...]


def read_parts(said: Sequence[Any], true: Sequence[Any]) -> tuple[tuple[str, str], ...]:
    """The parts of a reading that has as many values as the scene; none for another number."""
    return tuple((str(a), str(b)) for a, b in zip(said, true, strict=True)) if len(said) == len(true) else ()


def with_content(scene: Scene, **fields: Any) -> Scene:
    """The scene with other values of some fields of its content."""
    return {**scene, "content": {**scene["content"], **fields}}


@dataclass(frozen=True)
class SyntheticFamily:
    """One family of image problems. All functions are pure; `scene` is what `make` returned.

    make(rng)                    -> scene
    draw(scene)                  -> the image, at its original size
    ask(scene)                   -> (question, answer, answer type)
    solve(scene, writer)         -> texts of the canonical steps, claims chosen by the writer
    parse_claim(scene, stated, step) -> what the step claims given the facts stated before it; None if unparsed,
                                    and for a zoom without the region that it showed
    regions(scene)               -> where the image shows what is asked about, by the labels of zooms; for families that
                                    need zooms
    changes(scene)               -> the scenes with one visible fact changed, for `vlprm.tasks.flips`; none by default
    """

    name: str
    version: int
    question_types: tuple[str, ...]
    make: Callable[[random.Random], Scene]
    draw: Callable[[Scene], Image.Image]
    ask: Callable[[Scene], tuple[str, str, AnswerType]]
    solve: Callable[[Scene, Writer], list[str]]
    parse_claim: Callable[[Scene, dict[str, Any], Step], Claim | None]
    regions: Callable[[Scene], dict[str, Region]] = lambda scene: {}
    changes: Callable[[Scene], list[Change]] = lambda scene: []

    def item_id(self, split: str, index: int) -> str:
        """The id of an item. UserError for an unknown split."""
        self._refuse_unknown(split)
        return f"{self.name}@{self.version}/{split}/{index:06d}"

    def problem(self, split: str, index: int, drawn: bool = True) -> Problem:
        """Item `index` of a split; its id regenerates it bit for bit. `drawn=False` skips rendering: no images,
        faster."""
        problem_id = self.item_id(split, index)
        scene = self.scene(split, index)
        question, answer, answer_type = self.ask(scene)
        return Problem(
            id=problem_id,
            task=self.name,
            question=question,
            images=(png(self.draw(scene)),) if drawn else (),
            answer=answer,
            answer_type=answer_type,
            meta={"scene": scene, "question_type": scene["content"]["type"]},
        )

    def problem_by_id(self, problem_id: str, drawn: bool = True) -> Problem:
        """The item with this id. UserError if it is not an id of this family and version."""
        name, _, version = problem_id.partition("/")[0].partition("@")
        if (name, version) != (self.name, str(self.version)):
            raise UserError(f"item {problem_id!r} is not of {self.name}@{self.version}")
        parts = problem_id.split("/")
        if len(parts) != 3 or not parts[2].isdigit():
            raise UserError(f"{problem_id!r} is not an item id; one looks like {self.item_id('test', 0)!r}")
        return self.problem(parts[1], int(parts[2]), drawn)

    def verdicts(self, problem: Problem, steps: Sequence[Step]) -> list[Verdict | None]:
        """The ground truth of every step; None if the step does not parse as a claim of this family or is a zoom that
        was not executed.

        A step is correct if what it says is true. A wrong reading is a perception error (or the kind that its claim
        names). A wrong derivation is a reasoning error, unless it follows from earlier statements: then it has the kind
        of the first error before it.
        """
        first_error: ErrorKind | None = None
        result: list[Verdict | None] = []
        for claim in self.claims(problem, steps):
            kind = _error_kind(claim, first_error) if claim else None
            result.append(Verdict(kind is None, kind) if claim else None)
            first_error = first_error or kind
        return result

    def solved_step(self, problem: Problem, steps: Sequence[Step], writer: Writer) -> str | None:
        """The step of a solution by this writer that states the same fact as the last of these steps; None if there is
        none, or if the last step does not parse or is a zoom."""
        scene = problem.meta["scene"]
        *_, meant = self.claims(problem, steps)
        texts = self.solve(scene, writer)
        claims = self._claims(scene, map(parse_step, texts))
        return next((t for t, c in zip(texts, claims, strict=True) if meant and c and c.key == meant.key), None)

    def claims(self, problem: Problem, steps: Sequence[Step]) -> list[Claim | None]:
        """The claim of each step, given the steps before it; None for a step that does not parse."""
        return list(self._claims(problem.meta["scene"], [_tidy(step, problem.answer_type) for step in steps]))

    def _claims(self, scene: Scene, steps: Iterable[Step]) -> Iterator[Claim | None]:
        """The claim of each step, given the steps before it."""
        stated: dict[str, Any] = {}
        for step in steps:
            claim = self.parse_claim(scene, stated, step)
            if claim is not None:
                stated[claim.key] = claim.said
            yield claim

    def scene(self, split: str, index: int) -> Scene:
        """The scene of item `index` of a split, without drawing it. UserError for an unknown split."""
        self._refuse_unknown(split)
        for attempt in range(10_000):
            scene = self.make(rng_for(self.name, self.version, split, index, attempt))
            if _bucket(scene) in SPLIT_BUCKETS[split]:
                return scene
        raise AssertionError(f"{self.name}: no scene falls into split {split}")

    def _refuse_unknown(self, split: str) -> None:
        if split not in SPLIT_BUCKETS:
            raise UserError(f"unknown split {split!r} of {self.name}; known: {', '.join(SPLIT_BUCKETS)}")


def item_ids(families: Sequence[SyntheticFamily], split: str, problems: int, first: int = 0) -> list[str]:
    """Ids of `problems` problems of a split. Families take turns, each counting its items from `first`. UserError if
    there are none or a task is named twice."""
    names = [family.name for family in families]
    if problems < 1 or not names:
        raise UserError(
            f"split {split!r} would be empty: problems is {problems}, tasks are {names}; ask for at least 1 of each"
        )
    if len(set(names)) < len(names):
        raise UserError(f"a task is named twice in {', '.join(names)}; name it once")
    return [families[i % len(names)].item_id(split, first + i // len(names)) for i in range(problems)]


def _tidy(step: Step, answer_type: AnswerType) -> Step:
    """The step without surrounding white space, and with an answer in canonical form: `Blue.` counts as `blue`."""
    text = step.text.strip()
    if step.kind == "answer" and (answer := extract_answer([step], answer_type)) is not None:
        text = f"[answer] {answer}"
    return dataclasses.replace(step, text=text)


def _bucket(scene: Scene) -> int:
    content = json.dumps(scene["content"], sort_keys=True)
    return hashlib.sha256(content.encode()).digest()[0] % 20


def _error_kind(claim: Claim, first_error: ErrorKind | None) -> ErrorKind | None:
    if claim.said == claim.true:
        return None
    if claim.is_reading:
        return claim.perceived
    return first_error or "reasoning" if claim.said == claim.implied else "reasoning"
