"""The option that remains after others are excluded: "Only B fits", "leaving B", "not A but B"."""

from __future__ import annotations

import re

MAX_LENGTH = 600  # characters read from the end of a text
_L = r"(?:option |choice |answer |letter )?(?-i:\(([A-Z])\)|([A-Z])(?![A-Za-z'\u2019]))"
_OTHER = r"(?:option |choice |answer |letter )?(?-i:\(?[A-Z]\)?(?![A-Za-z]))"
_OTHERS = rf"{_OTHER}(?:(?:,? (?:and|or|nor) (?:not )?|, (?:not )?){_OTHER})*"
_FITS = (
    r"(?:remains|stays|is (?:left|possible|consistent|valid|true|correct|right|plausible)|fits|works|matches|survives|"
    r"agrees|satisfies|applies|makes sense|qualifies|can be (?:right|correct|true)|could be (?:right|correct|true))\b"
)
_PATTERNS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\b(?:only|just|solely) {_L} {_FITS}",
        rf"\b(?:leaves|leaving|left with|we keep|remains|remaining is|is left is)(?: us)?(?: with)?:?(?: only| just)? {_L}",
        rf"\b(?:remaining|last|other) (?:option|choice|answer|letter|one)[,:]? (?:is |must be )?{_L}",
        rf"\bthe only (?:\w+ ){{0,4}}(?:left|fits|works|remains|possible|remaining|matches)(?: \w+){{0,3}} is {_L}",
        rf"\bnot {_OTHERS},? but(?: rather)? {_L}",
        rf"(?:^|[.;:,] |\bso |\bis ){_L},? (?:rather than|instead of|and not|not) {_OTHER}",
        rf"\b(?:all|everything|every (?:other )?option|none|nothing)(?: options?| of them)? (?:but|except(?: for)?|other than) {_L} (?:is|are|can be) ",
        rf"\b(?:so|thus|therefore|hence),?(?: it)?(?: is|'s| must be| can only be| has to be)? {_L}\W*$",
        rf"(?:[;.:]|\bso|\bbut|, and|^)\s+(?:only )?{_L} {_FITS}",
    )
]
_MENTION = re.compile(r"\(([A-Z])\)|(?<![A-Za-z'])([B-HJ-Z]|A(?! [a-z]))(?![A-Za-z'])")


def remaining(text: str, count: int) -> str | None:
    """The letter of the one option that the end of a text leaves, of `count` options; None if it leaves none or
    several."""
    said = " ".join(text[-MAX_LENGTH:].split())
    found = [match for pattern in _PATTERNS for match in pattern.finditer(said)]
    if not found:
        return None
    last = max(found, key=lambda match: (match.end(match.lastindex or 0), match.end()))
    letter, rest = last[last.lastindex or 0], said[last.end() :]
    others = {a or b for a, b in _MENTION.findall(rest)} - {letter}
    if ord(letter) - 65 >= count or others or re.search(r"\b(?:wait|actually|however)\b", rest, re.IGNORECASE):
        return None
    return letter
