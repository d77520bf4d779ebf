"""Steps of which a reward model reads only a part: without their words, without all else, without the steps before, or
without images (What Are Step-Level Reward Models Rewarding, arXiv 2412.15904, section 3).

A step's tag always stays, and a zoom stays as it is, because it is an action. In what follows the tag, the mathematics
are numbers, operators, single letters and names of points in capitals (x, AB), LaTeX's commands, and the names that
steps of drawn problems claim (`red`, `circle`, `none`). Words are all other runs of letters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from vlprm.schema import Step
from vlprm.steps import untagged
from vlprm.tasks import NAMES

Words = Literal["kept", "removed", "only"]
History = Literal["kept", "removed"]
Images = Literal["kept", "removed"]

NOTHING = "..."  # a step without a tag of which nothing is left
_PART = re.compile(r"\\[A-Za-z]+|\d+(?:[.,]\d+)*|[^\W\d_]+(?:['\u2019-][^\W\d_]+)*|[^\S\n]+|\n|.", re.DOTALL)
_SYMBOL = re.compile(r"[A-Z]{1,3}|[a-z]")
_ARTICLES = ("a", "I")


def ablated(steps: Sequence[Step], words: Words) -> tuple[Step, ...]:
    """The steps as they are (`kept`), with the mathematics alone (`removed`), or with the words alone (`only`). Their
    number and kinds stay."""
    return tuple(steps) if words == "kept" else tuple(_ablated(step, words == "only") for step in steps)


def _ablated(step: Step, only: bool) -> Step:
    if step.kind == "zoom":
        return step
    parts = _PART.findall(untagged(step.text))
    left = "".join(part if part.isspace() or (_is_word(parts, n) == only) else " " for n, part in enumerate(parts))
    said = re.sub(r" ?\n ?", "\n", re.sub(r"[^\S\n]+", " ", left)).strip()
    tag = "" if step.kind == "other" else f"[{step.kind}] "
    return replace(step, text=(tag + said).rstrip() or NOTHING)


def _is_word(parts: Sequence[str], n: int) -> bool:
    part = parts[n]
    if not part[0].isalpha() or part.lower() in NAMES:
        return False
    if part in _ARTICLES:
        # Beside an operator or a number it is a symbol, as in "a + b"; else an article or a pronoun.
        near = [parts[m] for m in (n - 2, n - 1, n + 1, n + 2) if 0 <= m < len(parts) and not parts[m].isspace()]
        return not any(re.match(r"[-\d+*/=^<>()]", one) for one in near)
    return not _SYMBOL.fullmatch(part)


def unseen(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps as a model without images reads them: zooms show no crop."""
    return tuple(replace(step, region=None) for step in steps)


def apart(steps: Sequence[Step], history: History) -> list[tuple[Step, ...]]:
    """The sequences in which steps are read: all together, or each alone after the prompt if the history is
    removed."""
    return [tuple(steps)] if history == "kept" else [(step,) for step in steps]
