"""Numbers written in words: `twenty-three`, `two hundred and five`, `three million`, `two thirds`, `a dozen`."""

from __future__ import annotations

import re
from fractions import Fraction

_ONES = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_PARTS = ["half", "third", "quarter", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
_GROUPS = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_VALUES = (
    {"zero": 0, "a": 1}
    | {word: n for n, word in enumerate(_ONES + _TEENS, 1)}
    | {word: 20 + 10 * n for n, word in enumerate(_TENS)}
)
_PARTS_VALUES = {word: n for n, word in enumerate(_PARTS, 2)} | {"fourth": 4, "halve": 2}

_SMALL = rf"(?:(?:{'|'.join(_TENS)})(?:[-\s](?:{'|'.join(_ONES)})\b)?|{'|'.join(_TEENS + _ONES)}|zero)\b"
_UP_TO_999 = (
    rf"(?:{_SMALL}|a(?=\s(?:hundred|dozen|thousand|million)\b))(?:\s(?:hundred|dozen)\b(?:\s(?:and\s)?{_SMALL})?)?"
)
_FRACTION = rf"(?:{'|'.join(_ONES)}|a)[-\s](?:{'|'.join(_PARTS_VALUES)})s?\b"
# A pattern for a number in words; the text is in lower case or matched without regard to case.
WORDS = rf"\b(?:{_FRACTION}|{_UP_TO_999}(?:\s(?:thousand|million|billion|trillion)\b(?:,?\s(?:and\s)?{_UP_TO_999})?){{0,3}})"
_WHOLE = re.compile(WORDS, re.IGNORECASE)
MAX_LENGTH = 100


def in_words(text: str) -> Fraction | None:
    """The value of a text that is one number in words."""
    said = text.strip().casefold()
    if said in ("half", "a half"):
        return Fraction(1, 2)
    if len(said) > MAX_LENGTH or not _WHOLE.fullmatch(said):
        return None
    words = re.split(r"[-\s,]+", said)
    part = _PARTS_VALUES.get(words[-1].removesuffix("s"))
    if part:
        return Fraction(_VALUES[words[0]], part)
    total = group = 0
    for word in words:
        if (factor := _GROUPS.get(word, 1)) >= 1000:
            total, group = total + group * factor, 0
        else:
            group = group * factor if factor > 1 else group + _VALUES.get(word, 0)
    return Fraction(total + group)
