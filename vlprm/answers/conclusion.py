"""Find the text in which a solution states its answer, and the form of that text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vlprm.schema import Step
from vlprm.steps import join_steps, split_steps, untagged

Form = Literal["tagged", "tagged_prose", "other_tag", "boxed", "announced", "prose", "none"]
# Descriptions of the forms, for reports.
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
_END_OF_THOUGHT = re.compile(r"</think(?:ing)?>|◁/think▷|<\|end_of_thought\|>|<\|channel\|>final<\|message\|>")
_THOUGHT = re.compile(r"<think(?:ing)?>|◁think▷|<\|begin_of_thought\|>|<\|channel\|>analysis<\|message\|>")

_DOUBT = re.compile(
    r"\b(?:wait|actually|correction|mistaken?|(?:is|was|am|be) wrong|let me (?:re|check|look|verify)|on second thought|"
    r"I should have)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Conclusion:
    """The text that states a solution's answer.

    `after_tag`: the text is from an answer step, and `more` is the text after that step. `announced`: the text is from
    a step with another tag, or follows tagged steps, so it counts only if it announces an answer.
    """

    text: str
    after_tag: bool = False
    announced: bool = False
    more: str = ""

    @property
    def is_doubted(self) -> bool:
        """Whether the text after the answer step retracts the answer."""
        return bool(_DOUBT.search(self.more))


def concluding(steps: Sequence[Step]) -> Conclusion:
    """The concluding text of a solution. It follows the last zoom; in a tagged solution it is the last answer step, or
    else the last step, which may still announce the answer."""
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
    """The text after the thoughts (`<think>`); empty if the thoughts never end."""
    ends = list(_END_OF_THOUGHT.finditer(text))
    said = text[ends[-1].end() :] if ends else text
    begun = _THOUGHT.search(said)
    return said[: begun.start()] if begun else said


def answer_text(steps: Sequence[Step]) -> str:
    """The text that a benchmark's own rules read, since they are made for prose: the answer step, or else the whole
    solution."""
    said = concluding(steps)
    return said.text if said.after_tag and not said.is_doubted else join_steps(steps)


def form_of(steps: Sequence[Step]) -> Form:
    """The form in which a solution gives its answer, whether or not the answer can be read."""
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
