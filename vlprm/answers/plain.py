"""What a text says without its markup, and how it writes and states a number.

Markdown, LaTeX's layout and delimiters, and typographic variants are taken off; LaTeX that means something (`\\frac`,
`\\sqrt`, `\\pi`) stays. Every pattern here is linear in the text.
"""

from __future__ import annotations

import re
from fractions import Fraction

MAX_EXPONENT = 60  # of a power of ten
MAX_NUMBER = 60  # characters

_STYLES = "text(?:bf|it|rm|normal)?|math(?:rm|bf|it|sf)|boldsymbol|operatorname|mbox|rm|bf"
_REPLACED = [
    (re.compile(pattern), by)
    for pattern, by in (
        (rf"\\(?:{_STYLES})\s*\{{([^{{}}]*)\}}", r"\1"),
        (r"\\(?:left|right|displaystyle|q?quad|[Bb]igg?[lr]?|limits|hfill)(?![A-Za-z])", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"√(?=\s*\{)", r"\\sqrt"),
        (r"(?:\\sqrt|√)\s*(\d+|[A-Za-z])", r"\\sqrt{\1}"),
        (r"\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\degree", "°"),
        (r"\\[,;:! ]|~|\u00a0|\u202f|\u2009", " "),
        (r"\\([%$#&_])", r"\1"),
        (r"[\u2212\u2013\u2012\uff0d]", "-"),
        (r"(?<![\w*])(\*\*|__)([^*_\n]{1,300})\1", r"\2"),  # not the powers of 10**10**10
        (r"`+(?:python|json)?", ""),
        (r"[^\S\n]+", " "),  # so that no pattern backtracks over a run of spaces
        (r"\n{3,}", "\n\n"),
        (r"\$|\\[()\[\]]", ""),  # of money too: a number has no unit
    )
]

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d+)?|\.\d+)"
_POWER = r"(?:\s*(?:\\times|\\cdot|\u00d7|·|\*|x)\s*10\s*\^\s*\{?\s*[+-]?\d+\s*\}?|[eE][+-]?\d+)"
_FRACTION = rf"\\frac\s*\{{\s*-?{_DECIMAL}\s*\}}\s*\{{\s*{_DECIMAL}\s*\}}|{_DECIMAL}\s*/\s*{_DECIMAL}"
NUMBER = rf"[+-]?\s?(?:{_FRACTION}|{_DECIMAL}{_POWER}?)"
VERB = re.compile(  # what a value is stated by
    r"(?:=|≈|\\approx|\b(?:is|are|was|were|be|equals|gives?|get|choose)\b)\s*:?\s*"
    r"(?:(?:approximately|about|around|roughly|exactly|only|just|likely|probably|still|also|now|equal to|a total of|"
    r"a score of|the)\s+)*"
)
_PARTS = re.compile(
    rf"(?P<sign>[+-]?)\s?(?:(?:\\frac\s*\{{\s*)?(?P<top>-?{_DECIMAL})"
    rf"(?:\s*\}}\s*\{{\s*(?P<under>{_DECIMAL})\s*\}}|\s*/\s*(?P<below>{_DECIMAL})|(?P<power>{_POWER})|))"
)
_MIXED = re.compile(r"([+-]?)(\d+)(?:\s+(?=\d+\s*/)|\s*(?=\\frac))(\d+\s*/\s*\d+|\\frac\{\d+\}\{\d+\})")


def plain(text: str) -> str:
    for pattern, by in (*_REPLACED[:1], *_REPLACED):  # \text{} once more, for \textbf{\text{}}
        text = pattern.sub(by, text)
    return text


def number(text: str) -> Fraction | None:
    """The exact value of a text that is one number: digits with thousands, decimals, a power of ten, a fraction, a
    mixed number."""
    if len(text) <= MAX_NUMBER and (mixed := _MIXED.fullmatch(text.strip())):
        whole, fraction = Fraction(mixed[2]), number(mixed[3])
        return None if fraction is None else (whole + fraction) * (-1 if mixed[1] == "-" else 1)
    parts = _PARTS.fullmatch(text.strip())
    if not parts or len(text) > MAX_NUMBER:
        return None
    value = Fraction(parts["top"].replace(",", ""))
    if below := parts["under"] or parts["below"]:
        divisor = Fraction(below.replace(",", ""))
        if not divisor:
            return None
        value /= divisor
    if parts["power"]:
        exponent = int(re.sub(r".*?([+-]?\d+)\s*\}?$", r"\1", parts["power"]))
        if abs(exponent) > MAX_EXPONENT:
            return None
        value *= Fraction(10) ** exponent
    return -value if parts["sign"] == "-" else value
