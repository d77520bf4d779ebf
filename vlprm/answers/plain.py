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
# Separators of thousands in LaTeX and typography.
_GROUP_MARK = r"(?:\{(?:,|\\,)\}|(?:\\!)?,\s?\\!\s?|\\[,;:]|[\u202f\u2009'])"
_HIGH = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ"
_HIGH_AS = str.maketrans(_HIGH, "0123456789+-n")
_LOW = "₀₁₂₃₄₅₆₇₈₉₊₋ₙ"
_LOW_AS = str.maketrans(_LOW, "0123456789+-n")
_ENCLOSED = ((0x24B6, 0x41), (0x24D0, 0x61), (0x1F130, 0x41), (0x1F150, 0x41), (0x1F170, 0x41))  # Ⓐ ⓐ 🄰 🅐 🅰
# Full-width ASCII, typographic variants of ASCII, and marks without width.
_VARIANTS: dict[int, int | str | None] = {
    **{0xFF01 + n: 0x21 + n for n in range(94)},
    **{ord(mark): by for mark, by in zip("\u3000\u3002\u2044\u2215\u2236\u2018\u2019\u02da", " .//:''°", strict=True)},
    **{first + n: chr(letter + n) for first, letter in _ENCLOSED for n in range(26)},
    **dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff")),
}
_STYLED = re.compile(r"[\U0001d400-\U0001d7ff\u2102-\u2134]")  # letters and digits of mathematical alphabets
_BLACKBOARD = str.maketrans(
    {letter: rf"\mathbb{{{name}}}" for letter, name in zip("\u211d\u2124\u2115\u211a\u2102", "RZNQC", strict=True)}
)

_DOUBLED = re.compile(r"\\\\(?=[A-Za-z{}()\[\]])")  # only outside a matrix, where it ends a row


def _escaped(found: re.Match[str]) -> str:
    """The LaTeX command whose escape was read as a control character."""
    return r"\f" if "\x0c" in found[0] else r"\b"


def _power(found: re.Match[str]) -> str:
    return f"^{{{found[0].translate(_HIGH_AS)}}}"


def _index(found: re.Match[str]) -> str:
    return f"_{{{found[0].translate(_LOW_AS)}}}"


def _vulgar(found: re.Match[str]) -> str:
    """`½` as `1/2`, separated from a whole number before it: `3½` is `3 1/2`. As a factor it is a LaTeX fraction."""
    fraction = unicodedata.normalize("NFKC", found[2]).replace("\u2044", "/")
    if found[3] is not None:
        top, _, under = fraction.partition("/")
        fraction = rf"\frac{{{top}}}{{{under}}}"
    return f"{found[1]} {fraction}" if found[1] else fraction


def _unstyled(found: re.Match[str]) -> str:
    r"""The content of `\text{}`; a space parts it from a command before it."""
    return f"{found[1]} {found[2]}" if found[1] else found[2]


_REPLACED: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(pattern), by)
    for pattern, by in (
        (r"\\?\x0c(?=rac)|\\?\x08(?=oxed)", _escaped),
        (rf"(\\[A-Za-z]+)?\\(?:{_STYLES})\s*\{{([^{{}}]*)\}}", _unstyled),
        (r"\\(?:left|right|displaystyle|q?quad|[Bb]igg?[lr]?|limits|hfill)(?![A-Za-z])", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (rf"(?<=\d){_GROUP_MARK}(?=\d{{3}}(?!\d))", ","),
        (r"(?:(\d)\s?)?([\u00bc-\u00be\u2150-\u215e])((?=\s?[A-Za-zπ√\\]))?", _vulgar),
        (rf"(?<=[\w)}}\]])[{_HIGH}]+", _power),
        (rf"(?<=[A-Za-z])[{_LOW}]+", _index),
        (r"(?<=\d)\s?x\s?(?=10\s?\^)", r" \\times "),
        (r"(?<=\d)∘", "°"),
        (r"(?<![\w)}\]])\u2014(?=[\d.\\])|\ufe63", "-"),
        (r"√(?=\s*\{)", r"\\sqrt"),
        (r"(?:\\sqrt|√)\s*(\d+|[A-Za-z])", r"\\sqrt{\1}"),
        (r"\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\degree|º", "°"),
        (r"(?<!\\)\\[,;:! ]|~|\u00a0|\u202f|\u2009", " "),  # but not the \\ and space that end a matrix's row
        (r"(?<!\\)\\([%$#&_])", r"\1"),
        (r"[\u2212\u2013\u2012\uff0d]", "-"),
        (r"(?<![\w*])(\*\*|__)([^*_\n]{1,300})\1", r"\2"),  # but not the powers in 10**10**10
        (r"^\s*([*_])([^*_\n]{1,200})\1(?=[.!]?\s*$)", r"\2"),
        (r"`+(?:python|json)?", ""),
        (r"[^\S\n]+", " "),  # so that no pattern backtracks over a run of spaces
        (r"\n{3,}", "\n\n"),
        (r"\\(?=\")", ""),
        (r"\$|(?<!\\)\\[()\[\]]", ""),  # also a dollar sign of money: a number has no unit
    )
]

CJK = "[\u4e00-\u9fff]"
_DIGITS = r"(?:[1-9]\d{0,2}(?:,\d{3})+(?!\d)|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d+)?|\.\d+)"
_POWER = r"(?:\s*(?:\\times|\\cdot|\u00d7|·|\*|x)\s*10\s*\^\s*\{?\s*[+-]?\d+\s*\}?|[eE][+-]?\d+)"
_FRACTION = rf"\\frac\s*\{{\s*-?{_DECIMAL}\s*\}}\s*\{{\s*{_DECIMAL}\s*\}}|{_DECIMAL}\s*/\s*{_DECIMAL}"
NUMBER = rf"[+-]?\s?(?:{_FRACTION}|{_DECIMAL}{_POWER}?)"
VERB = re.compile(  # verbs and signs that state a value
    r"(?:(?<![<>!:=])=(?!=)|≈|\\approx|\b(?:is|are|was|were|be|equals|gives?|giving|makes?|making|yields?|get|choose)\b"
    r"|(?<=\b[Ii]t)['\u2019]s\b|是|等于|等於|约为|為|为|(?:一共|总共|總共|共)?有)\s*:?\s*"
    r"(?:(?:approximately|about|around|roughly|exactly|only|just|likely|probably|still|also|now|equal to|a total of|"
    r"a score of|the)\s+)*"
)
_PARTS = re.compile(
    rf"(?P<sign>[+-]?)\s?(?:(?:\\frac\s*\{{\s*)?(?P<top>-?{_DECIMAL})"
    rf"(?:\s*\}}\s*\{{\s*(?P<under>{_DECIMAL})\s*\}}|\s*/\s*(?P<below>{_DECIMAL})|(?P<power>{_POWER})|))"
)
_MIXED = re.compile(r"([+-]?)(\d+)(?:\s+(?=\d+\s*/)|\s*(?=\\frac))(\d+\s*/\s*\d+|\\frac\{\d+\}\{\d+\})")
_DECIMAL_COMMA = re.compile(r"([+-]?(?:0|[1-9]\d*|[1-9]\d{0,2}(?:\.\d{3})+)),(\d+)")
_SPACED = re.compile(r"[+-]?[1-9]\d{0,2}(?: \d{3})+(?:\.\d+)?")
_REPEATING = re.compile(r"([+-]?)(\d{0,9})\.(\d{0,9})\\(?:overline|bar|dot)\s?\{(\d{1,9})\}")
# Three equal digits or two equal groups; the last digits of a root may be equal twice by chance.
_GOES_ON = re.compile(
    r"([+-]?)(\d{0,9})\.(\d{0,9}?)(?=(\d)\4\4|(\d{2,9})\5)(?:\4{3,}|(?:\5){2,})(?:\.\.\.|…|\\[lcd]?dots)"
)
_TEN_TO = re.compile(r"([+-]?)10\^\{?([+-]?\d{1,2})\}?")


_MATRIX = re.compile(
    r"\\begin\s?\{([a-zA-Z]*matrix|array|cases)\}(.{0,2000}?)\\end\s?\{\1\}", re.DOTALL
)  # the limit keeps this linear


_ALIGNED = re.compile(
    r"\\begin\s?\{(aligned|align|gathered|gather|equation|split)\*?\}(.{0,2000}?)\\end\s?\{\1\*?\}", re.DOTALL
)


def _rows(found: re.Match[str]) -> str:
    """The rows of aligned mathematics as a list; a row that opens with an equals sign continues the row before it."""
    rows = [" ".join(row.replace("&", " ").split()).rstrip(",;") for row in re.split(r"\\\\", found[2])]
    return re.sub(r", (?==)", " ", ", ".join(row for row in rows if row))


def _one_line(found: re.Match[str]) -> str:
    """A matrix on one line, with the usual mark between its rows. The kinds of brackets are one kind, `pmatrix`."""
    rows = re.sub(r"\\cr(?![A-Za-z])|\\\\\s?\[[\d.]+\s?[a-z]{2}\]", r"\\\\ ", re.sub(r"[ \t]*\n[ \t]*", " ", found[2]))
    name = re.sub(r"^(?:[pbB]?small|B)matrix", "pmatrix", found[1])
    return f"\\begin{{{name}}}{rows}\\end{{{name}}}"


def plain(text: str) -> str:
    """The text without markup, in the project's spelling of LaTeX and typographic variants."""
    if not text.isascii():
        text = unicode_variants(text)
    text = _MATRIX.sub(_one_line, _ALIGNED.sub(_rows, text)) if "\\begin" in text else _DOUBLED.sub(r"\\", text)
    for pattern, by in (*_REPLACED[:2], *_REPLACED):  # \text{} twice, for \textbf{\text{}}
        text = pattern.sub(by, text)
    return text


def unicode_variants(text: str) -> str:
    """The text with ASCII for full-width, styled and typographic characters, and without marks that have no width."""
    text = text.translate(_VARIANTS).translate(_BLACKBOARD)
    return _STYLED.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)


def number(text: str) -> Fraction | None:
    """The exact value of a text that is one number: digits with thousands separators, a decimal, which may repeat, a
    power of ten, a fraction or a mixed number. None if it is not a number."""
    text = text.strip()
    if len(text) > MAX_NUMBER:
        return None
    if _SPACED.fullmatch(text):
        return Fraction(text.replace(" ", ""))
    if mixed := _MIXED.fullmatch(text):
        whole, fraction = Fraction(mixed[2]), number(mixed[3])
        return None if fraction is None else (whole + fraction) * (-1 if mixed[1] == "-" else 1)
    if repeating := _REPEATING.fullmatch(text) or _GOES_ON.fullmatch(text):
        return _repeating(*repeating.groups())
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


def _repeating(sign: str, whole: str, once: str, digit: str | None, group: str | None = None) -> Fraction:
    period = digit or group or ""
    value = Fraction(f"{whole or 0}.{once or 0}") + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(once))
    return -value if sign == "-" else value


def places(value: Fraction) -> int | None:
    """Digits after the decimal point; None if the expansion is infinite."""
    rest, length = value.denominator, 0
    while rest % 10 == 0:
        rest, length = rest // 10, length + 1
    for factor in (2, 5):
        while rest % factor == 0:
            rest, length = rest // factor, length + 1
    return length if rest == 1 else None


def decimal_comma(text: str) -> Fraction | None:
    """The value of `0,375` or `1.234,5` if its one comma cannot separate thousands; None otherwise."""
    found = _DECIMAL_COMMA.fullmatch(text.strip())
    if not found or len(text) > MAX_NUMBER or number(text) is not None:
        return None
    return Fraction(f"{found[1].replace('.', '')}.{found[2]}")


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
