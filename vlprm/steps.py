"""Text <-> steps. A step is a paragraph, or the lines under one tag; the tag gives its kind; no character is lost.

Writing is canonical: `[answer] 42`, and a blank line between two steps. Reading is tolerant: of case, of bullets,
numbers and stars about a tag, of a tag on a line of its own, of steps that single line breaks part, of CRLF. A step
that a single line break parts from the next ends with that line break; so steps always join to the text that the policy
wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from vlprm.schema import Step, StepKind

SEPARATOR = "\n\n"

_BEFORE = r"(?:(?:[-+•>]|\#{1,6}|[*_`]{1,3}|\(?\d{1,3}[.):]|step[^\S\n]?\d{1,3}[^\S\n]?[-.:)\u2013]?)[^\S\n]*){0,4}"
_NAME = r"\\?[\[\uff3b【][^\S\n]?(?:final[ _])?(perception|reasoning|zoom|answer)[^\S\n]?[:\uff1a]?\\?[\]\uff3d】]"
_TAG = re.compile(rf"\s*{_BEFORE}{_NAME}", re.IGNORECASE)
_AFTER_TAG = re.compile(r"(?:[*_`]{1,3}(?=[\s:\uff1a]|$))?\s*[:\uff1a]?(?:[*_`]{1,3}(?=\s))?\s*")
_CLOSING_TAG = re.compile(r"\[\s?/\s?(?:perception|reasoning|zoom|answer)\s?\][*_`]{0,3}", re.IGNORECASE)
_BREAK_BEFORE_TAG = re.compile(rf"\n(?=[^\S\n]*{_BEFORE}{_NAME})", re.IGNORECASE)
_BLANK_CRLF = re.compile(r"(?:\r\n){2}")
_TOOL_CALL = "<tool_call>"  # how Qwen's models open one, after what they say about it


def step_kind(text: str) -> StepKind:
    """The kind that the tag which opens a step names; `zoom` where it has none and calls a tool, else `other`."""
    if tag := _TAG.match(text):
        return tag[1].lower()  # type: ignore[return-value]
    return "zoom" if _TOOL_CALL in text else "other"


def parse_step(text: str) -> Step:
    return Step(step_kind(text), text)


def _opens_at(text: str) -> int:
    """Where the first word of a step stands, after its tag."""
    tag = _TAG.match(text)
    after = _AFTER_TAG.match(text, tag.end()) if tag else None
    return after.end() if after else len(text) - len(text.lstrip())


def untagged(text: str) -> str:
    """What a step says: without its tag, the tag that closes it, and white space about it."""
    if not (tag := _TAG.match(text)):
        return text.strip()
    said = text[_opens_at(text) :].strip()
    if _CLOSING_TAG.fullmatch(said, closing := max(0, said.rfind("["))):
        said = said[:closing].rstrip()
    opened = re.search(r"[*_`]+$", text[: tag.start(1) - 1])  # **[answer] 42**
    return said.removesuffix(opened[0]).rstrip() if opened else said


def split_steps(text: str) -> list[Step]:
    """The steps of a text; `join_steps` gives the text back to the letter.

    A paragraph of white space alone is kept with the step before it, so that no step is empty; a tag alone is kept with
    a paragraph without a tag that follows it.
    """
    steps: list[str] = []
    for paragraph in text.split(SEPARATOR):
        if steps and (not paragraph.strip() or _goes_on(steps[-1], paragraph)):
            steps[-1] += SEPARATOR + paragraph
        else:
            steps.append(paragraph)
    return [parse_step(part) for paragraph in steps for part in _parts(paragraph) if text]


def _goes_on(step: str, paragraph: str) -> bool:
    return not untagged(step) and not (step.strip() and _TAG.match(paragraph))


def _parts(paragraph: str) -> list[str]:
    """A paragraph, parted at the line breaks before its tags; each line break stays with the part before it."""
    cuts = {cut.end() for cut in (*_BREAK_BEFORE_TAG.finditer(paragraph), *_BLANK_CRLF.finditer(paragraph))}
    parts: list[str] = []
    for start, end in pairwise((0, *sorted(cuts), len(paragraph))):
        part = paragraph[start:end]
        if parts and (not part.strip() or _goes_on(parts[-1], part)):
            parts[-1] += part
        else:
            parts.append(part)
    return parts


def separator_after(step: Step) -> str:
    """What is between a step and the next: nothing if the step ends with the line break that parts them."""
    return "" if step.text.endswith("\n") and not step.text.endswith(SEPARATOR) else SEPARATOR


def step_end(text: str) -> int | None:
    """Where the first step of a text ends and another may begin; None while it may go on."""
    opens = _opens_at(text)
    blank = text.find(SEPARATOR, opens)
    breaks = [found.end() for pattern in (_BREAK_BEFORE_TAG, _BLANK_CRLF) if (found := pattern.search(text, opens))]
    return min([*breaks, *([blank] if blank >= 0 else [])], default=None)


def join_steps(steps: Iterable[Step]) -> str:
    text, after = "", ""
    for step in steps:
        text, after = text + after + step.text, separator_after(step)
    return text


def turns_of(steps: Sequence[Step]) -> list[Sequence[Step]]:
    """The steps of each of the policy's turns: a zoom that was answered ends one."""
    starts = [0, *(k + 1 for k, step in enumerate(steps) if step.ends_turn), len(steps)]
    return [steps[a:b] for a, b in pairwise(starts) if a < b]


def one_step_per_turn(steps: Sequence[Step]) -> list[Step]:
    """The steps of each turn as one step, their paragraphs joined by a line break."""
    return [replace(turn[-1], text="\n".join(step.text.rstrip("\n") for step in turn)) for turn in turns_of(steps)]
