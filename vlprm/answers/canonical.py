"""Canonical forms, one function per answer type: equal answers become equal strings; a text of another type gives None.

Each function expects the answer alone; `vlprm.answers.response` finds the answer in prose.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Context
from fractions import Fraction

from vlprm.answers.clock import on_24_hours, time_of_day
from vlprm.answers.formula import as_formula
from vlprm.answers.number_words import in_words
from vlprm.answers.plain import decimal_comma, number, plain, unboxed
from vlprm.answers.units import parted, scaled, without_currency
from vlprm.schema import AnswerType

MAX_LENGTH = 400  # characters of a list or an expression
_FLOATS = Context(prec=15)

_INTEGER = re.compile(r"[+-]?\d{1,18}")
_WITH_COMMAS = re.compile(r"[+-]?\d+(?:,\s?[+-]?\d+)+")
_TIME = re.compile(r"0?(\d{1,2}):([0-5]\d)")
_QUOTES = "\"'“”\u2018\u2019«»"


def as_integer(text: str) -> str | None:
    """Digits only. Several numbers, or a number with a decimal comma, keep their commas and so differ from any
    integer."""
    said = _bare(text)
    value = _value(said)
    if value is not None and value.denominator == 1:
        return str(value.numerator) if _INTEGER.fullmatch(str(value.numerator)) else None
    return said.replace(" ", "") if len(said) <= MAX_LENGTH and _WITH_COMMAS.fullmatch(said) else None


def as_word(text: str) -> str | None:
    """Lower case, single spaces, no full stop at the end."""
    return " ".join(text.strip().rstrip(".").casefold().split()) or None


def as_choice(text: str) -> str | None:
    """The option's letter as a capital: `(b)` and `b.` are `B`."""
    letter = re.fullmatch(r"\(?([A-Za-z])\)?[.:]?", text.strip())
    return letter[1].upper() if letter else None


def as_float(text: str) -> str | None:
    """A decimal number of at most 15 digits, without an exponent. A unit, `$` or `%` is dropped."""
    value = _value(_bare(text))
    return None if value is None else decimal(value)


def as_text(text: str) -> str | None:
    """Lower case, single spaces, no markup. Numbers are written as in `as_float`: `$1,000` is `1000`. A
    time of day is `7:45 pm`, also if it is written as `19:45`."""
    words = as_word(plain(text))
    if not words:
        return None
    if time := time_of_day(words) or on_24_hours(words):
        return time
    if time_alone := _TIME.fullmatch(words):
        return f"{time_alone[1]}:{time_alone[2]}"
    value = number(words.removesuffix("%")) if words[0] in "+-.\\0123456789" else None
    value = value if value is not None else decimal_comma(words)
    return words if value is None else decimal(value)


def as_list(text: str) -> str | None:
    """`[a, b]`, with each item as in `as_text`. A comma separates items, never thousands."""
    said = plain(text).strip().rstrip(".")
    bracketed = re.fullmatch(r"[\[({](.*)[\])}]", said, re.DOTALL)
    items = (bracketed[1] if bracketed else said).split(",")
    if len(said) > MAX_LENGTH or (not bracketed and len(items) < 2):
        return None
    forms = [as_text(item.strip().strip(_QUOTES)) for item in items]
    return None if None in forms else f"[{', '.join(str(form) for form in forms)}]"


def as_expression(text: str) -> str | None:
    """LaTeX without layout. A rational number is an integer or `p/q`, which a name may precede (`x=1/2`) and a
    unit follow after a space."""
    return as_formula(text) if len(text) <= MAX_LENGTH else None


def decimal(value: Fraction) -> str:
    """The number in decimal notation, with at most 15 significant digits."""
    quotient = _FLOATS.divide(_FLOATS.create_decimal(value.numerator), _FLOATS.create_decimal(value.denominator))
    return format(quotient.normalize(_FLOATS), "f") if quotient else "0"


def _bare(text: str) -> str:
    return unboxed(plain(text).strip().rstrip(".")).strip()


def _value(said: str) -> Fraction | None:
    """The number that a text states, with or without a unit."""
    if len(said) > MAX_LENGTH:
        return None
    for text, factor in _scaled(said):
        value = number(text)
        value = value if value is not None else decimal_comma(text)
        if value is not None:
            return value * factor
    return in_words(said)


def _scaled(said: str) -> list[tuple[str, Fraction]]:
    """The number in a text, in the ways it may be written, with the factor of a word after it (5 thousand)."""
    bare = without_currency(said)
    found = [(bare, Fraction(1)), (bare.removesuffix("%"), Fraction(1))]
    base, factor, _ = scaled(bare, letters="kKMB")
    if factor > 1:
        found.append((base, Fraction(factor)))
    value, unit = parted(bare)
    return [*found, (value, Fraction(1))] if unit else found


CANONICAL: dict[AnswerType, Callable[[str], str | None]] = {
    "integer": as_integer,
    "word": as_word,
    "choice": as_choice,
    "float": as_float,
    "text": as_text,
    "list": as_list,
    "expression": as_expression,
}
