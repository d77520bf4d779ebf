"""Text <-> steps. A step is a paragraph; its tag gives its kind; no character of the policy's text is lost."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from vlprm.schema import STEP_KINDS, Step, StepKind

SEPARATOR = "\n\n"

_TAG = re.compile(r"\s*\[([a-z]+)\] ")
_TOOL_CALL = "<tool_call>"  # how Qwen's models open one, after what they say about it


def step_kind(text: str) -> StepKind:
    """The kind that a paragraph's opening tag names; `zoom` where it has none and calls a tool, else `other`."""
    tag = _TAG.match(text)
    if tag and tag[1] in STEP_KINDS and tag[1] != "other":
        return tag[1]  # type: ignore[return-value]
    return "zoom" if _TOOL_CALL in text else "other"


def parse_step(text: str) -> Step:
    return Step(step_kind(text), text)


def split_steps(text: str) -> list[Step]:
    """The steps of a text; `join_steps` gives the text back to the letter.

    A paragraph of white space alone is kept with the step before it, so that no step is empty.
    """
    steps: list[str] = []
    for paragraph in text.split(SEPARATOR):
        if steps and (not paragraph.strip() or not steps[-1].strip()):
            steps[-1] += SEPARATOR + paragraph
        else:
            steps.append(paragraph)
    return [parse_step(paragraph) for paragraph in steps if text]


def step_end(text: str) -> int | None:
    """Where the first step of a text ends and another may begin; None while it may go on."""
    opens = len(text) - len(text.lstrip())
    end = text.find(SEPARATOR, opens)
    return end if end >= 0 else None


def join_steps(steps: Iterable[Step]) -> str:
    return SEPARATOR.join(step.text for step in steps)


def turns_of(steps: Sequence[Step]) -> list[Sequence[Step]]:
    """The steps of each of the policy's turns: a zoom that was answered ends one."""
    starts = [0, *(k + 1 for k, step in enumerate(steps) if step.ends_turn), len(steps)]
    return [steps[a:b] for a, b in pairwise(starts) if a < b]


def one_step_per_turn(steps: Sequence[Step]) -> list[Step]:
    """The steps of each turn as one step, their paragraphs joined by a line break."""
    return [replace(turn[-1], text="\n".join(step.text for step in turn)) for turn in turns_of(steps)]
