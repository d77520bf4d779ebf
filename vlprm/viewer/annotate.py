"""A page on which a person confirms or overrides the labels of steps, beside the image.

`Questions` asks about steps, one at a time and in its order, each within its solution; `AnnotationServer` shows them
and hands over each verdict at once. Its addresses, none of which names a file:

    /                     the page
    /progress?after=9     how many questions are answered, and the next open one after this one
    /question?at=7        one question
    /image?at=7&index=0&small=0
    /verdict              takes a verdict on a step of a question's solution
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from markupsafe import Markup

from vlprm.errors import UserError
from vlprm.labels.sources import UNSURE, VERDICTS
from vlprm.viewer.names import METHOD_NAMES
from vlprm.viewer.page import FOLDER, in_script, policy, problem_json
from vlprm.viewer.sections import environment
from vlprm.viewer.serve import HTML, JSON, Answer, LocalServer, image_answer
from vlprm.viewer.views import ProblemView, plain

CHOICES = (*VERDICTS, UNSURE)
MOST = 2_000  # characters of a reason
SCRIPTS = ("data.js", "elements.js", "text.js", "math.js", "problem.js", "annotate.js")
STYLES = ("page.css", "annotate.css")


@dataclass(frozen=True)
class VoteView:
    """The verdict of a source on a step; `error_kind` and `reason` are empty where it gave none."""

    source: str
    correct: bool
    error_kind: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Question:
    """A step to label, the one at index `step` of the only candidate of `problem`, whose steps have their targets as
    rewards. For each step: the `votes` of the sources, the `rollouts` from it (right, with a result), and what the
    person said so far (`mine`: one of CHOICES, or None) and why."""

    problem: ProblemView
    step: int
    votes: Sequence[Sequence[VoteView]]
    rollouts: Sequence[tuple[int, int]]
    mine: Sequence[str | None]
    reasons: Sequence[str]


@dataclass(frozen=True)
class Progress:
    """`total` questions: `answered` have an answer, `moot` more stand after a step that the person called wrong.
    `next` is an open question."""

    answered: int
    moot: int
    total: int
    next: int | None


class Questions(Protocol):
    """The questions by index, and where their answers go."""

    def __len__(self) -> int: ...

    def question(self, at: int) -> Question:
        """The question at this index."""
        ...

    def images(self, at: int) -> tuple[bytes, ...]:
        """The encoded images of its problem."""
        ...

    def answer(self, at: int, step: int, verdict: str, reason: str) -> None:
        """Store a verdict (one of CHOICES) on a step of the question's solution, so that a kill loses nothing."""
        ...

    def progress(self, after: int) -> Progress:
        """How far the person is. `next` is the first open question after the one at this index, or else the first."""
        ...


class AnnotationServer(LocalServer):
    """Serves the page of these questions."""

    def __init__(self, port: int, title: str, questions: Questions) -> None:
        self.page = _page(title).encode()
        self.questions = questions
        super().__init__(port)

    def answer(self, path: str, number: Callable[[str], int]) -> Answer | None:
        """The page, the progress, a question or an image."""
        if path == "/":
            return HTML, self.page
        with self.lock:
            if path == "/progress":
                return _json(self.questions.progress(number("after")))
            if path == "/question":
                at = number("at")
                question, images = self.questions.question(at), self.questions.images(at)
                shown = {**plain(question), "problem": problem_json(question.problem, images)}
                return JSON, json.dumps(shown, allow_nan=False).encode()
            if path == "/image":
                return image_answer(self.questions.images(number("at")), number)
        return None

    def take(self, path: str, sent: dict[str, Any]) -> Answer | None:
        """Store a verdict; the answer is the progress."""
        if path != "/verdict":
            return None
        at, step, verdict, reason = (sent.get(name) for name in ("at", "step", "verdict", "reason"))
        if type(at) is not int or type(step) is not int or at < 0 or step < 0 or not isinstance(reason, str):
            raise UserError("a verdict needs at, step (indices) and reason (a text)")
        if verdict not in CHOICES:
            raise UserError(f"the verdict is none of {', '.join(CHOICES)}")
        with self.lock:
            self.questions.answer(at, step, verdict, reason[:MOST])
            return _json(self.questions.progress(at))


def _json(progress: Progress) -> Answer:
    return JSON, json.dumps(vars(progress)).encode()


def _page(title: str) -> str:
    style, script = ("".join((FOLDER / "page" / name).read_text() for name in names) for names in (STYLES, SCRIPTS))
    assert "</" not in script, "it would end its script element"
    names = Markup(f'<script type="application/json" id="names">{in_script(METHOD_NAMES)}</script>\n')
    template = environment().get_template("annotate.html")
    shown = {"title": title, "names": names, "style": Markup(style), "script": Markup(script)}
    return template.render(**shown, policy=policy(style, script, served=True))
