"""Final answers: what a solution answers, and whether that is the gold answer. One rule an answer type.

A text that does not parse has no answer (None): it is a *no result*, counted and shown, and never a wrong answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from vlprm.schema import AnswerType, Step

_INTEGER = re.compile(r"[+-]?\d{1,18}")


def _integer(text: str) -> str | None:
    compact = text.strip().rstrip(".").replace(",", "")
    return str(int(compact)) if _INTEGER.fullmatch(compact) else None


def _word(text: str) -> str | None:
    word = " ".join(text.strip().rstrip(".").casefold().split())
    return word or None


def _choice(text: str) -> str | None:
    letter = re.fullmatch(r"\(?([A-Za-z])\)?[.:]?", text.strip())
    return letter[1].upper() if letter else None


CANONICAL: dict[AnswerType, Callable[[str], str | None]] = {"integer": _integer, "word": _word, "choice": _choice}


def extract_answer(steps: Sequence[Step], answer_type: AnswerType) -> str | None:
    """The canonical answer of a solution: what its last step says if that is an answer step, else None."""
    if not steps or steps[-1].kind != "answer":
        return None
    return CANONICAL[answer_type](steps[-1].text.strip().removeprefix("[answer]"))


def is_correct(answer: str | None, gold: str, answer_type: AnswerType) -> bool | None:
    """True or False for an extracted answer, None for a *no result*. ValueError if the gold answer does not parse."""
    expected = CANONICAL[answer_type](gold)
    if expected is None:
        raise ValueError(f"gold answer {gold!r} is not of type {answer_type}; correct the problem")
    return None if answer is None else answer == expected
