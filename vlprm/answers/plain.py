r"""A text without its markup, and patterns for numbers and for the verbs that state a value.

Markdown, LaTeX layout and delimiters, and typographic variants are removed; LaTeX with a meaning (`\frac`, `\sqrt`,
`\pi`) stays. All patterns run in linear time.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction

MAX_EXPONENT = 60  # largest power of ten
MAX_NUMBER = 60  # characters

_STYLES = "text(?:bf|it|rm|normal|tt|sf)?|math(?:rm|bf|it|sf|tt)|boldsymbol|operatorname|mbox|rm|bf"
_GROUP_MARK = r"(?:\{,\}|,\\!\s?|\\[,;:]|[\u202f\u2009])"  # separators of thousands in LaTeX and typography
_HIGH = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ"
_HIGH_AS = str.maketrans(_HIGH, "0123456789+-n")
_FULL_WIDTH = {0xFF01 + n: 0x21 + n for n in range(94)} | {0x3000: 0x20, 0x3002: 0x2E, 0x2044: 0x2F}


_DOUBLED = re.compile(r"\\\\(?=[A-Za-z{}()\[\]])")  # only outside a matrix, where it ends a row


def _escaped(found: re.Match[str]) -> str:
    """The LaTeX command whose escape was read as a control character."""
    return r"\f" if "\x0c" in found[0] else r"\b"


def _power(found: re.Match[str]) -> str:
    return f"^{{{found[0].translate(_HIGH_AS)}}}"


def _vulgar(found: re.Match[str]) -> str:
    """`½` as `1/2`, separated from a whole number before it: `3½` is `3 1/2`."""
    fraction = unicodedata.normalize("NFKC", found[2]).replace("\u2044", "/")
    return f"{found[1]} {fraction}" if found[1] else fraction


_REPLACED: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(pattern), by)
    for pattern, by in (
        (r"\\?\x0c(?=rac)|\\?\x08(?=oxed)", _escaped),
        (rf"\\(?:{_STYLES})\s*\{{([^{{}}]*)\}}", r"\1"),
        (r"\\(?:left|right|displaystyle|q?quad|[Bb]igg?[lr]?|limits|hfill)(?![A-Za-z])", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (rf"(?<=\d){_GROUP_MARK}(?=\d{{3}}(?!\d))", ","),
        (r"(?:(\d)\s?)?([\u00bc-\u00be\u2150-\u215e])", _vulgar),
        (rf"(?<=[\w)}}\]])[{_HIGH}]+", _power),
        (r"√(?=\s*\{)", r"\\sqrt"),
        (r"(?:\\sqrt|√)\s*(\d+|[A-Za-z])", r"\\sqrt{\1}"),
        (r"\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\degree|º", "°"),
        (r"(?<!\\)\\[,;:! ]|~|\u00a0|\u202f|\u2009", " "),  # but not the \\ and space that end a matrix's row
        (r"(?<!\\)\\([%$#&_])", r"\1"),
        (r"[\u2212\u2013\u2012\uff0d]", "-"),
        (r"(?<![\w*])(\*\*|__)([^*_\n]{1,300})\1", r"\2"),  # but not the powers in 10**10**10
        (r"`+(?:python|json)?", ""),
        (r"[^\S\n]+", " "),  # so that no pattern backtracks over a run of spaces
        (r"\n{3,}", "\n\n"),
        (r"\\(?=\")", ""),
        (r"\$|(?<!\\)\\[()\[\]]", ""),  # also a dollar sign of money: a number has no unit
    )
]

_DIGITS = r"(?:[1-9]\d{0,2}(?:,\d{3})+(?!\d)|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d+)?|\.\d+)"
_POWER = r"(?:\s*(?:\\times|\\cdot|\u00d7|·|\*|x)\s*10\s*\^\s*\{?\s*[+-]?\d+\s*\}?|[eE][+-]?\d+)"
_FRACTION = rf"\\frac\s*\{{\s*-?{_DECIMAL}\s*\}}\s*\{{\s*{_DECIMAL}\s*\}}|{_DECIMAL}\s*/\s*{_DECIMAL}"
NUMBER = rf"[+-]?\s?(?:{_FRACTION}|{_DECIMAL}{_POWER}?)"
VERB = re.compile(  # verbs and signs that state a value
    r"(?:(?<![<>!:=])=(?!=)|≈|\\approx|\b(?:is|are|was|were|be|equals|gives?|get|choose)\b"
    r"|(?<=\b[Ii]t)['\u2019]s\b|是|等于|等於|为|為)\s*:?\s*"
    r"(?:(?:approximately|about|around|roughly|exactly|only|just|likely|probably|still|also|now|equal to|a total of|"
    r"a score of|the)\s+)*"
)
_PARTS = re.compile(
    rf"(?P<sign>[+-]?)\s?(?:(?:\\frac\s*\{{\s*)?(?P<top>-?{_DECIMAL})"
    rf"(?:\s*\}}\s*\{{\s*(?P<under>{_DECIMAL})\s*\}}|\s*/\s*(?P<below>{_DECIMAL})|(?P<power>{_POWER})|))"
)
_MIXED = re.compile(r"([+-]?)(\d+)(?:\s+(?=\d+\s*/)|\s*(?=\\frac))(\d+\s*/\s*\d+|\\frac\{\d+\}\{\d+\})")
_DECIMAL_COMMA = re.compile(r"([+-]?(?:0|[1-9]\d*)),(\d+)")
_SPACED = re.compile(r"[+-]?[1-9]\d{0,2}(?: \d{3})+(?:\.\d+)?")
_TEN_TO = re.compile(r"([+-]?)10\^\{?([+-]?\d{1,2})\}?")


def plain(text: str) -> str:
    """The text without markup, in the project's spelling of LaTeX and typographic variants."""
    if not text.isascii():
        text = text.translate(_FULL_WIDTH)
    if "\\begin" not in text:
        text = _DOUBLED.sub(r"\\", text)
    for pattern, by in (*_REPLACED[:2], *_REPLACED):  # \text{} twice, for \textbf{\text{}}
        text = pattern.sub(by, text)
    return text


def number(text: str) -> Fraction | None:
    """The exact value of a text that is one number: digits with thousands separators, a decimal, a power of ten, a
    fraction or a mixed number. None if it is not a number."""
    text = text.strip()
    if len(text) > MAX_NUMBER:
        return None
    if _SPACED.fullmatch(text):
        return Fraction(text.replace(" ", ""))
    if mixed := _MIXED.fullmatch(text):
        whole, fraction = Fraction(mixed[2]), number(mixed[3])
        return None if fraction is None else (whole + fraction) * (-1 if mixed[1] == "-" else 1)
    if power := _TEN_TO.fullmatch(text):
        return Fraction(10) ** int(power[2]) * (-1 if power[1] == "-" else 1) if int(power[2]) <= MAX_EXPONENT else None
    parts = _PARTS.fullmatch(text)
    if not parts:
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


def decimal_comma(text: str) -> Fraction | None:
    """The value of `0,375` if its one comma cannot separate thousands; None otherwise."""
    found = _DECIMAL_COMMA.fullmatch(text.strip())
    if not found or len(text) > MAX_NUMBER or number(text) is not None:
        return None
    return Fraction(f"{found[1]}.{found[2]}")


def unboxed(text: str) -> str:
    r"""The content of a `\boxed{}` around the whole text."""
    said = text.strip()
    while (opened := re.match(r"\\f?boxed\s*\{", said)) and said.endswith("}"):
        inner = said[opened.end() : -1]
        if _closes_early(inner):
            return said
        said = inner.strip()
    return said


def _closes_early(inner: str) -> bool:
    depth = 0
    for brace in re.findall(r"[{}]", inner):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return True
    return depth != 0
