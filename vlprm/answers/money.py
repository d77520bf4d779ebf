r"""Write a currency as a unit after its amount: `\$12` as `12 dollars`, `£12` as `12 £`."""

from __future__ import annotations

import re

_NAMES = {"$": "dollars", "pounds": "£", "euro": "€", "yen": "¥", "Rs": "₹", "Rs.": "₹"}
_CODES = {"USD", "EUR", "GBP", "CAD", "AUD", "INR", "CNY", "RMB", "JPY", "KRW", "CHF"}
_AMOUNT = (
    r"-?(?:\d{1,3}(?:(?:,|\{,\}|,\\!|\\,)\d{3})+|\d{1,15})(?:\.\d{1,9})?"
    r"(?:\s?(?:thousand|lakh|million|crore|billion|trillion)\b|(?:[kKMB]|mn|bn)\b)?(?![\w^\\_{}*+=<>(]|\.\d|/(?![A-Za-z]{2}))"
)
_LATEX = r"\\(?:pounds|euro|yen)(?![A-Za-z])"
_BEFORE = re.compile(
    rf"(?:(?:\b(?P<country>US|A|C|CA|AU|NZ|HK)(?=\\?\$))?(?P<sign>\\\$\s?|\$|[£€¥₹₩₽]\s?|{_LATEX}\s?)"
    rf"|\b(?P<code>{'|'.join(sorted(_CODES))}|Rs\.?)\s?)(?P<amount>{_AMOUNT})"
)
# `12$`: only escaped, since `$` may close mathematics.
_AFTER = re.compile(r"(?<=\d)\s?\\\$(?![\w$])")
# A pair of dollar signs around mathematics: no space within, and no digit after it (Pandoc's rule).
_MATHS = re.compile(r"(?<!\\)(?:\$\$[^$]{1,500}\$\$|\$(?=[^\s$])[^$\n]{0,300}(?<=[^\s\\])\$(?!\d))")
_COUNTRIES = {"A": "AUD", "AU": "AUD", "C": "CAD", "CA": "CAD", "HK": "HKD", "NZ": "NZD"}


def with_currency(text: str) -> str:
    """The text with each currency after its amount, as a unit. Dollar signs around mathematics stay."""
    if not re.search(r"[$£€¥₹₩₽]|\\(?:pounds|euro|yen)|\b(?:[A-Z]{3}|Rs)\b", text):
        return text
    parts, last = [], 0
    for maths in _MATHS.finditer(text):
        marks = "$$" if maths[0].startswith("$$") else "$"
        inner = _spelled(maths[0].strip("$"))
        parts += [_spelled(text[last : maths.start()]), marks, inner, marks]
        last = maths.end()
    return "".join([*parts, _spelled(text[last:])])


def _spelled(text: str) -> str:
    return _AFTER.sub(" dollars", _BEFORE.sub(_after, text))


def _after(found: re.Match[str]) -> str:
    said = (found["sign"] or found["code"]).strip()
    if said == "$" and found.string[found.end() :].lstrip().startswith("$"):  # $12 $ is mathematics
        return found[0]
    unit = _COUNTRIES.get(found["country"] or "") or _NAMES.get(said.lstrip("\\"), said)
    return f"{found['amount']} {unit}"
