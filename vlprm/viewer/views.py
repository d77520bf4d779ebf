"""The data that pages show: problems with their candidates and search trees, independent of the records they come from.

Code that has records fills these types; the pages, the list of problems and the server read nothing else. All text
passes through `plain`, which makes invisible characters visible.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from vlprm.schema import Region

QUESTION_LENGTH = 160  # maximum length in characters of a question in the list of problems


@dataclass(frozen=True)
class StepView:
    """A step. `reward` (in a tree: the fused target) is in [0, 1]; `correct` and `error_kind` are the ground truth, the
    label or the judge's verdict; None if unknown. `said` is the judge's reason, `correction` the judge's corrected
    step, `note` anything else. `region` is in pixels of the problem's image that it names."""

    text: str
    kind: str
    reward: float | None = None
    correct: bool | None = None
    error_kind: str | None = None
    said: str = ""
    correction: str = ""
    region: Region | None = None
    note: str = ""


@dataclass(frozen=True)
class CandidateView:
    """A solution. `right` is None for *no result*, and `stop` says why it ended; `rewards` are the solution's rewards
    by aggregation."""

    steps: tuple[StepView, ...]
    answer: str | None
    right: bool | None
    stop: str = "answer"
    rewards: Mapping[str, float | None] = field(default_factory=dict)
    critique: str = ""


@dataclass(frozen=True)
class TreeStepView:
    """A step of a search tree after the step at index `parent` (-1: the prompt). `mc_correct` of `mc_valid` rollouts
    from here were correct."""

    step: StepView
    parent: int
    mc_correct: int
    mc_valid: int


@dataclass(frozen=True)
class ProblemView:
    """A problem without its images (see `Problems`), whose number is `n_images`. `chosen` has each method's candidate
    by index."""

    id: str
    benchmark: str
    question_type: str
    question: str
    answer: str | None
    n_images: int = 1
    candidates: tuple[CandidateView, ...] = ()
    chosen: Mapping[str, int] = field(default_factory=dict)
    tree: tuple[TreeStepView, ...] = ()


class Problems(Protocol):
    """The source of a page's problems, by index: a large run need not be in memory."""

    def __len__(self) -> int: ...

    def view(self, at: int) -> ProblemView:
        """The problem at this index."""
        ...

    def images(self, at: int) -> tuple[bytes, ...]:
        """The encoded image files of the problem at this index."""
        ...

    def facts(self, at: int) -> dict[str, Any]:
        """`facts` of the problem's view. A source that knows them without making the view overrides this."""
        return facts(self.view(at))


class Joined(Problems):
    """The problems of several sources, one after the other."""

    def __init__(self, *sources: Problems) -> None:
        self._sources = sources

    def __len__(self) -> int:
        return sum(map(len, self._sources))

    def view(self, at: int) -> ProblemView:
        """The problem at this index."""
        source, place = self._found(at)
        return source.view(place)

    def images(self, at: int) -> tuple[bytes, ...]:
        """The encoded image files of the problem at this index."""
        source, place = self._found(at)
        return source.images(place)

    def facts(self, at: int) -> dict[str, Any]:
        """The facts of the problem at this index."""
        source, place = self._found(at)
        return source.facts(place)

    def _found(self, at: int) -> tuple[Problems, int]:
        for source in self._sources:
            if at < len(source):
                return source, at
            at -= len(source)
        raise IndexError(at)


def facts(view: ProblemView) -> dict[str, Any]:
    """The fields by which the list of problems shows and filters them. `outcomes`: whether each method's choice is
    correct (null: no result); `differ`: whether methods chose different answers; `right` is null without a gold
    answer."""
    solutions = [view.candidates[i] for i in view.chosen.values()]
    steps = [step for c in view.candidates for step in c.steps] + [node.step for node in view.tree]
    return {
        "id": visible(view.id),
        "benchmark": visible(view.benchmark),
        "type": visible(view.question_type),
        "question": visible(view.question[:QUESTION_LENGTH]),
        "right": None if view.answer is None else sum(c.right is True for c in view.candidates),
        "of": len(view.candidates),
        "outcomes": {method: view.candidates[i].right for method, i in view.chosen.items()},
        "differ": len({solution.answer for solution in solutions}) > 1,
        "kinds": sorted({step.error_kind for step in steps if step.error_kind}),
        "steps": len(view.tree),
        "images": view.n_images,
    }


def plain(value: Any) -> Any:
    """A view as JSON values. Empty fields and numbers that are not finite are left out; rewards are rounded to four
    places."""
    if dataclasses.is_dataclass(value):
        fields = {name: plain(item) for name, item in vars(value).items()}
        return {name: item for name, item in fields.items() if item not in (None, "", [], {})}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {visible(str(name)): plain(item) for name, item in value.items()}
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return visible(value) if isinstance(value, str) else value


# Control characters except tab, line feed and carriage return; direction marks and zero-width characters; lone
# surrogates, which cannot be encoded.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def visible(text: str) -> str:
    """The text with each character that is invisible or reorders text replaced by its code point."""
    return _UNSEEN.sub(
        lambda match: f"\N{MATHEMATICAL LEFT ANGLE BRACKET}U+{ord(match[0]):04X}\N{MATHEMATICAL RIGHT ANGLE BRACKET}",
        text,
    )
