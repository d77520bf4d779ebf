"""Convert between text and steps. A step is a paragraph, or the lines under one tag, which gives its kind.

Writing is canonical: `[answer] 42`, with a blank line between steps. Reading tolerates any case, bullets, numbers and
stars around a tag, a tag on its own line, steps separated by single line breaks, and white space in blank lines, as
with CRLF. A step that another break than `SEPARATOR` ends keeps that break, so steps always join to the exact
text.
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
_AFTER_TAG = re.compile(
    r"(?:[*_`]{1,3}(?=[\s:\uff1a]|$))?\s*(?:[:\uff1a]|[\u2013\u2014](?=\s))?(?:[*_`]{1,3}(?=\s))?\s*"
)
_CLOSING_TAG = re.compile(r"\[\s?/\s?(?:perception|reasoning|zoom|answer)\s?\][*_`]{0,3}", re.IGNORECASE)
_BREAK_BEFORE_TAG = re.compile(rf"\n(?=[^\S\n]*{_BEFORE}{_NAME})", re.IGNORECASE)
_SPACED_BLANK = re.compile(r"\n[^\S\n]+\n")  # a blank line with white space in it, such as the CR of CRLF
_TOOL_CALL = "<tool_call>"  # opens a call in Qwen's models, after their explanation


def step_kind(text: str) -> StepKind:
    """The kind named by the tag that opens a step. Without a tag, `zoom` if it contains a tool call, else `other`."""
    if tag := _TAG.match(text):
        return tag[1].lower()  # type: ignore[return-value]
    return "zoom" if _TOOL_CALL in text else "other"


def parse_step(text: str) -> Step:
    """A step with its kind."""
    return Step(step_kind(text), text)


def _opens_at(text: str) -> int:
    """Index of a step's first word after its tag."""
    tag = _TAG.match(text)
    after = _AFTER_TAG.match(text, tag.end()) if tag else None
    return after.end() if after else len(text) - len(text.lstrip())


def untagged(text: str) -> str:
    """The content of a step, without its tag, a closing tag, and surrounding white space."""
    if not (tag := _TAG.match(text)):
        return text.strip()
    said = text[_opens_at(text) :].strip()
    if _CLOSING_TAG.fullmatch(said, closing := max(0, said.rfind("["))):
        said = said[:closing].rstrip()
    opened = re.search(r"[*_`]+$", text[: tag.start(1) - 1])  # **[answer] 42**
    return said.removesuffix(opened[0]).rstrip() if opened else said


def split_steps(text: str) -> list[Step]:
    """Split a text into steps; `join_steps` restores the exact text.

    A paragraph of white space stays with the step before it, so no step is empty. A tag on its own stays with the
    untagged paragraph after it.
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
    """Split a paragraph at the line breaks before its tags and at blank lines with white space; each break stays with
    the part before it."""
    cuts = {cut.end() for cut in (*_BREAK_BEFORE_TAG.finditer(paragraph), *_SPACED_BLANK.finditer(paragraph))}
    parts: list[str] = []
    for start, end in pairwise((0, *sorted(cuts), len(paragraph))):
        part = paragraph[start:end]
        if parts and (not part.strip() or _goes_on(parts[-1], part)):
            parts[-1] += part
        else:
            parts.append(part)
    return parts


def separator_after(step: Step) -> str:
    """The text between a step and the next: empty if the step ends with the line break that separates them."""
    return "" if step.text.endswith("\n") and not step.text.endswith(SEPARATOR) else SEPARATOR


def step_end(text: str) -> int | None:
    """Index at which the first step of a text ends and the next may begin; None while it may continue."""
    opens = _opens_at(text)
    blank = text.find(SEPARATOR, opens)
    breaks = [found.end() for pattern in (_BREAK_BEFORE_TAG, _SPACED_BLANK) if (found := pattern.search(text, opens))]
    return min([*breaks, *([blank] if blank >= 0 else [])], default=None)


def join_steps(steps: Iterable[Step]) -> str:
    """The text of steps, with separators."""
    text, after = "", ""
    for step in steps:
        text, after = text + after + step.text, separator_after(step)
    return text


def turns_of(steps: Sequence[Step]) -> list[Sequence[Step]]:
    """Group steps into the policy's turns. A zoom with a crop or a message ends a turn."""
    starts = [0, *(k + 1 for k, step in enumerate(steps) if step.ends_turn), len(steps)]
    return [steps[a:b] for a, b in pairwise(starts) if a < b]


def one_step_per_turn(steps: Sequence[Step]) -> list[Step]:
    """Merge the steps of each turn into one step, with a line break between paragraphs."""
    return [replace(turn[-1], text="\n".join(step.text.rstrip("\n") for step in turn)) for turn in turns_of(steps)]
