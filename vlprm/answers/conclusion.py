"""Where a solution says its answer, and in which form: what it says in an answer step, or all of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vlprm.schema import Step
from vlprm.steps import join_steps, split_steps, untagged

Form = Literal["tagged", "tagged_prose", "other_tag", "boxed", "announced", "prose", "none"]
# What each form is, for reports.
FORMS: dict[Form, str] = {
    "tagged": "`[answer]` and the answer alone",
    "tagged_prose": "`[answer]` and a box, a unit or a sentence",
    "other_tag": "an answer tag in another form, such as `**[Answer]:**`",
    "boxed": "a box, without an answer tag",
    "announced": '"the answer is", or `<answer>`, without an answer tag',
    "prose": "other text, without a tag",
    "none": "steps with tags, and no answer step",
}

_TAGGED = ("perception", "reasoning", "answer")
_CANONICAL = re.compile(r"\[answer\] (?=\S)")
_PROSE = re.compile(r"\\f?boxed|[$*`]|\\[(\[]|[A-Za-z]{2,}\W+[A-Za-z]{2,}\W+[A-Za-z]{2,}|\d\s?[A-Za-z°%]|\n\s*\S")
_ANNOUNCED = re.compile(r"\b(?:answer|option|choice)\b[^.\n]{0,40}?(?:\bis\b|[:\uff1a])|<answer>", re.IGNORECASE)
_END_OF_THOUGHT = re.compile(r"</think(?:ing)?>|◁/think▷|<\|end_of_thought\|>")
_THOUGHT = re.compile(r"<think(?:ing)?>|◁think▷|<\|begin_of_thought\|>")

_DOUBT = re.compile(
    r"\b(?:wait|actually|correction|mistaken?|(?:is|was|am|be) wrong|let me (?:re|check|look|verify)|on second thought|"
    r"I should have)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Conclusion:
    """The text that says a solution's answer. `after_tag`: it is what its answer step says, and `more` is what follows
    that step. `announced`: it was tagged as another step, or is told apart from tagged steps, so that it counts only
    where it announces an answer."""

    text: str
    after_tag: bool = False
    announced: bool = False
    more: str = ""

    @property
    def is_doubted(self) -> bool:
        """Whether what follows the answer step takes its answer back."""
        return bool(_DOUBT.search(self.more))


def concluding(steps: Sequence[Step]) -> Conclusion:
    """Where the answer of a solution stands: after its last zoom, and where it has any tag, in its last answer step.
    Without one, what follows the last tag may still announce the answer."""
    last_zoom = max((i for i, step in enumerate(steps) if step.kind == "zoom"), default=-1)
    said = list(steps[last_zoom + 1 :])
    whole = join_steps(said)
    text = without_thoughts(whole)
    if text != whole:
        said = split_steps(text)
    answers = [i for i, step in enumerate(said) if step.kind == "answer"]
    if answers:
        at = answers[-1]
        in_step, more = untagged(said[at].text), join_steps(said[at + 1 :])
        return Conclusion(in_step or more, after_tag=True, more=more if in_step else "")
    if not any(step.kind in _TAGGED for step in steps):
        return Conclusion(text)
    return Conclusion(untagged(said[-1].text) if said else "", announced=True)


def without_thoughts(text: str) -> str:
    """A text after its thoughts; nothing of one whose thoughts never end."""
    ends = list(_END_OF_THOUGHT.finditer(text))
    said = text[ends[-1].end() :] if ends else text
    begun = _THOUGHT.search(said)
    return said[: begun.start()] if begun else said


def answer_text(steps: Sequence[Step]) -> str:
    """What the rules of benchmarks, made for prose, read of a solution: what its answer step says; without one, all of
    it."""
    said = concluding(steps)
    return said.text if said.after_tag and not said.is_doubted else join_steps(steps)


def form_of(steps: Sequence[Step]) -> Form:
    """In which form a solution gives its answer, be it one that can be read or not."""
    said = concluding(steps)
    if said.after_tag:
        step = next(step for step in reversed(steps) if step.kind == "answer")
        if not _CANONICAL.match(step.text):
            return "other_tag"
        return "tagged_prose" if _PROSE.search(said.text) else "tagged"
    if re.search(r"\\f?boxed", said.text):
        return "boxed"
    if _ANNOUNCED.search(said.text):
        return "announced"
    return "none" if said.announced else "prose"
