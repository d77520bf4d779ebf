"""Canonical forms, one function an answer type: equal answers are equal strings, and what is no such answer is None.

They read a text that is nothing but the answer; `vlprm.answers.response` finds that text in prose.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Context
from fractions import Fraction

from vlprm.answers.plain import number, plain
from vlprm.schema import AnswerType

MAX_LENGTH = 400  # characters of a list or an expression
_FLOATS = Context(prec=15)

_INTEGER = re.compile(r"[+-]?\d{1,18}")
_SUM = r"[\d+*/().\s^\u00d7·-]+|(?:[\d+*/()^-]|\\cdot|\\times|\\frac|[{}.])+"  # arithmetic that leads to a result
_ASSIGNED = re.compile(rf"(?:\\?[A-Za-z]+(?:_\{{?\w+\}}?)?|{_SUM})=")
_UNIT = re.compile(r"(?<=[\d}])\s*(?:%|°|(?<=\s)(?:(?:square|cubic)\s)?[A-Za-z]{1,12}(?:\^\{?\d\}?)?)$")


def as_integer(text: str) -> str | None:
    compact = text.strip().rstrip(".").replace(",", "")
    return str(int(compact)) if _INTEGER.fullmatch(compact) else None


def as_word(text: str) -> str | None:
    return " ".join(text.strip().rstrip(".").casefold().split()) or None


def as_choice(text: str) -> str | None:
    letter = re.fullmatch(r"\(?([A-Za-z])\)?[.:]?", text.strip())
    return letter[1].upper() if letter else None


def as_float(text: str) -> str | None:
    """A decimal number without an exponent, of 15 digits, from what `number` reads; a `$` or `%` is dropped."""
    value = number(plain(text).strip().rstrip(".").removesuffix("%"))
    return None if value is None else _decimal(value)


def as_text(text: str) -> str | None:
    """Lower case, single spaces, no markup. A number is written as `as_float` writes it: `$1,000` is `1000`."""
    words = as_word(plain(text))
    return words and (as_float(words) or words)


def as_list(text: str) -> str | None:
    """`[a, b]`, each item in the form of `as_text`. The comma parts items, never thousands."""
    said = plain(text).strip().rstrip(".")
    bracketed = re.fullmatch(r"[\[({](.*)[\])}]", said, re.DOTALL)
    items = (bracketed[1] if bracketed else said).split(",")
    if len(said) > MAX_LENGTH or (not bracketed and len(items) < 2):
        return None
    forms = [as_text(item.strip().strip("'\"")) for item in items]
    return None if None in forms else f"[{', '.join(str(form) for form in forms)}]"


def as_expression(text: str) -> str | None:
    """LaTeX without layout, units and the name or sum before its `=`. A rational number is an integer or `p/q`."""
    if len(text) > MAX_LENGTH:
        return None
    said = plain(text).strip().rstrip(".")
    if boxed := re.fullmatch(r"\\boxed\s*\{(.*)\}", said):
        said = boxed[1]
    bare = re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", _UNIT.sub("", said))  # 2 1/2 is no 21/2
    while (assigned := _ASSIGNED.match(bare)) and assigned.end() < len(bare):
        bare = bare[assigned.end() :]
    bare = re.sub(r"([_^])\{(\w)\}", r"\1\2", bare)
    if bare.count("{") != bare.count("}") or bare.endswith(tuple("+-*/^=,")):
        return None  # it was cut short
    value = number(bare)
    return bare or None if value is None else str(value)


def _decimal(value: Fraction) -> str:
    quotient = _FLOATS.divide(_FLOATS.create_decimal(value.numerator), _FLOATS.create_decimal(value.denominator))
    return format(quotient.normalize(_FLOATS), "f") if quotient else "0"


CANONICAL: dict[AnswerType, Callable[[str], str | None]] = {
    "integer": as_integer,
    "word": as_word,
    "choice": as_choice,
    "float": as_float,
    "text": as_text,
    "list": as_list,
    "expression": as_expression,
}
