"""Expressions: their canonical text, and their parts for comparison.

`as_formula` removes layout. `Formula` splits the result into named values, a unit and the mathematics, which
Math-Verify compares.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from vlprm.answers.clock import time_of_day
from vlprm.answers.money import with_currency
from vlprm.answers.names import APPLIED, FUNCTIONS, NAME
from vlprm.answers.number_words import in_words
from vlprm.answers.plain import decimal_comma, number, plain, unboxed
from vlprm.answers.quantities import mixed, worded
from vlprm.answers.units import Unit, parted, scaled, unit_of, without_currency

_RELATION = re.compile(
    r"[<>≤≥≠≈]|!=|\\(?:leq?|geq?|neq?|lt|gt|le|ge|in|notin|subset|cup|cap|approx|to|mid)(?![A-Za-z])"
)
_NAMED_VALUE = re.compile(rf"{NAME.pattern}\s*=")
_SUM = re.compile(
    r"[\d+*/().\s^\u00d7·-]+|(?:[\d+*/()^-]|\\cdot|\\times|\\frac|[{}.])+"
)  # a sum that leads to a result
_CONSTANT = re.compile(r"(?:[\d.,+\-*/^(){}\s]|\\(?:frac|sqrt|pi|cdot|times|pm|mp|circ)(?![A-Za-z])|π|°|%|\[\d+\])+")
MAX_ROOTS = 20
_AND = re.compile(r",?\s*(?:\\\\?\s)?\b(?:and|or)\b\s*,?\s*")
_ABOUT = re.compile(r"^(?:about|approximately|approx\.?|around|roughly|exactly|only|\\approx(?![A-Za-z])|≈|~)\s*(?=\S)")
_STOP = re.compile(r"(?<!\.)(?!\.\.\.$)[.;]+$")  # but not the dots of 0.333...
_CUT_SHORT = re.compile(r"(?<=\d)(?:\.\.\.|…)$")  # 1.4142...
_SIDES = re.compile(
    r"(?<=\d)\s*([A-Za-z]{1,12})\s*(?:\bby\b|\bx\b|\u00d7|\\times)\s*(?=\d+(?:\.\d+)?\s*\1(?![A-Za-z]))"
)
_SPACE = re.compile(r"(\\[A-Za-z]+) (?=[A-Za-z])|(\d) (?=\d)|, (?=\S)| ")
_GREEK = "pi|theta|alpha|beta|gamma|delta|epsilon|lambda|sigma|omega|phi|rho|tau"


def _listed_cases(found: re.Match[str]) -> str:
    return ", ".join(line.strip(" ,;&") for line in re.split(r"\\\\", found[1]))


# Mathematics typed without LaTeX. The name of a function is not a product of letters.
_TYPED: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(pattern), by)
    for pattern, by in (
        (r"\*\*", "^"),
        (r"[\[(]?\s?\\begin\{array\}\s?\{[^{}]*\}(.*?)\\end\{array\}\s?[\])]?", r"\\begin{pmatrix}\1\\end{pmatrix}"),
        (r"\\begin\{cases\}(.*?)\\end\{cases\}", _listed_cases),
        (r"\\colon(?![A-Za-z])", ":"),
        (r"\\langle(?![A-Za-z])|⟨", "("),
        (r"\\rangle(?![A-Za-z])|⟩", ")"),
        (r"^\s*<([^<>]*,[^<>]*)>\s*$", r"(\1)"),
        (r"(?<![A-Za-z\\])cbrt(?=\s?[({])", r"\\sqrt[3]"),
        (r"(?<![A-Za-z\\])abs\(([^()]{1,80})\)", r"|\1|"),
        (r"(?<![A-Za-z\\])(floor|ceil)\(([^()]{1,80})\)", r"\\l\1 \2 \\r\1 "),
        (r"(?<![A-Za-z\\])log_?10(?=[({ ])", r"\\log_{10}"),
        (r"(?<![A-Za-z\\])a(sin|cos|tan)(?=[({ ])", r"\\arc\1"),
        (rf"(?<![A-Za-z\\])({'|'.join(FUNCTIONS)}|{_GREEK}|infty|sqrt)(?=[^A-Za-z]|$)", r"\\\1"),
        (r"(?<![A-Za-z\\])P[iI](?![A-Za-z(])", r"\\pi "),
        (r"(\d{1,3})\s?(?:choose\s?|C\s?(?=\d))(\d{1,3})(?!\d)", r"\\binom{\1}{\2}"),
        (r"(?<![A-Za-z])nCr\((\d{1,3}),\s?(\d{1,3})\)", r"\\binom{\1}{\2}"),
        (r"(?<=[\w)}])\s+squared(?![A-Za-z])", "^2"),
        (r"(?<=[\w)}])\s+cubed(?![A-Za-z])", "^3"),
        (r"(?<=\d)\s+to\s+(?=\d)", ":"),
        (r"(?<=\d)\s+x\s+(?=\d)|\s+by\s+(?=\d)", r"\\times "),
        (r"\+\s?/\s?-", r"\\pm "),
        (r"\^-(\d+|[A-Za-z])", r"^{-\1}"),
        (r"(?<=\d)\s?°(?=[\s)}}]*[)}}])", r"^{\\circ}"),
        (r"[\u00b5\u03bc]", r"\\mu "),
        (r"\u2206", r"\\Delta "),
        (r"\u25b3", r"\\triangle "),
        (r"\u03c6|\u03d5|\\varphi(?![A-Za-z])", r"\\phi "),
        (r"\\varepsilon(?![A-Za-z])", r"\\epsilon "),
        (r"(?<![A-Za-z\\])(?:infinity|inf|oo)(?![A-Za-z])|∞", r"\\infty "),
        (r"(?<![A-Za-z\\])sqrt(?=[A-Za-z](?![A-Za-z]))", r"\\sqrt "),
        (r"π", r"\\pi "),
        (r"[\u00d7]", r"\\times "),
        (r"[·⋅∙]", r"\\cdot "),
        (r"÷", r"\\div "),
        (r"\.\.\.|…", r"\\ldots "),
        (r"≤|<=|=<|⩽", r"\\leq "),
        (r"≥|>=|⩾", r"\\geq "),
        (r"≠|!=", r"\\neq "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"±", r"\\pm "),
        (r"\u222a", r"\\cup "),
        (r"∩", r"\\cap "),
        (r"∈", r"\\in "),
        (r"∅|\\varnothing", r"\\emptyset "),
        (r"∛", r"\\sqrt[3]"),
        (r"∜", r"\\sqrt[4]"),
        (r"√|\\surd(?![A-Za-z])", r"\\sqrt"),
        (r"\\sqrt\s?\[2\]", r"\\sqrt"),
        (r"\\exp\s?(?=[({])", "e^"),
    )
]


def typed(text: str) -> str:
    """LaTeX for mathematics typed as plain characters: `pi`, `sqrt(3)`, `x**2`, `≥`."""
    for pattern, by in _TYPED:
        text = pattern.sub(by, text)
    return _roots(_powers(text))


def _roots(text: str) -> str:
    r"""Add braces to the argument of a root: `\sqrt(3)`, `\sqrt 3`, `\sqrt[3]2`."""
    text = _root_brackets(text)
    parts = re.split(r"(\\sqrt(?:\[[^\[\]]{1,20}\])?)\s*", text)
    for n in range(2, len(parts), 2):
        said = parts[n]
        if fraction := re.match(r"\\frac\s?\{[^{}]{1,80}\}\s?\{[^{}]{1,80}\}", said):
            parts[n] = f"{{{fraction[0]}}}{said[fraction.end() :]}"
        elif under := re.match(r"\d+|\\?[A-Za-z]+(?=\W|\d|$)|[A-Za-z]", said):
            parts[n] = f"{{{under[0]}}}{said[under.end() :]}"
    return "".join(parts)


def _root_brackets(text: str) -> str:
    r"""`\sqrt(x)` as `\sqrt{x}`, also for a root within the brackets of a root."""
    for opened in list(re.finditer(r"\\sqrt(?:\[[^\[\]]{1,20}\])?\s*(?=\()", text))[:MAX_ROOTS]:
        start = opened.end()  # the length of the text stays, so each place stays
        if end := closing(text[start:], "()"):
            text = f"{text[:start]}{{{text[start + 1 : start + end]}}}{text[start + end + 1 :]}"
    return text


def _powers(text: str) -> str:
    """`e^(16)` as `e^{16}`."""
    parts = text.split("^(")
    for n in range(1, len(parts)):
        end = closing("(" + parts[n], "()")
        parts[n] = f"^{{{parts[n][: end - 1]}}}{parts[n][end:]}" if end else "^(" + parts[n]
    return "".join(parts)


def closing(text: str, pair: str) -> int:
    """Index at which the bracket that opens the text is closed; 0 if it is not closed."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == pair[0]) - (character == pair[1])
        if not depth:
            return place
    return 0


def at_depth_0(text: str, marks: str) -> list[str]:
    """Split a text at characters outside all brackets. An interval may open and close with either kind of bracket."""
    parts, depth, start = [], 0, 0
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth <= 0 and character in marks:
            parts.append(text[start:place])
            start = place + 1
    return [*parts, text[start:]]


def equated(text: str) -> list[str]:
    """The sides of the equals signs in a text; the whole text if it has another relation."""
    if _RELATION.search(text):
        return [text]
    return [side.strip() for side in at_depth_0(text, "=")]


def as_formula(text: str) -> str | None:
    """The canonical text of an expression (see `vlprm.answers.canonical.as_expression`); None if it is cut short."""
    said = unboxed(_STOP.sub("", plain(with_currency(text)).strip()))
    said = _STOP.sub("", re.sub(r"\\(?:text|mathrm)\s?\{([^{}]*)\}", r"\1", said).strip())
    said = _SIDES.sub(r" \\times ", _ABOUT.sub("", said))
    if number(said) is None:
        said = _CUT_SHORT.sub("", said)
    if meaning := _MEANING.get(said.casefold()):
        return meaning
    if bracketed := re.fullmatch(r"\((.*)\)|\\?\{(.*)\\?\}", said):  # (x=1, y=2)
        listed = bracketed[1] or bracketed[2] or ""
        said = listed if len(_named_items(listed)) > 1 else said
    if (time := time_of_day(said)) or (mixed_units := _mixed(said)):
        return time or mixed_units
    items = _items(said)
    if len(items) > 1:
        return _joined(items)
    if (in_full := _scaled(said)) is not None:
        return in_full
    start = said.rfind("=") + 1 if _NAMED_VALUE.match(said) else 0
    value, unit = parted(said[start:])
    bare = _tidy(said[:start] + value)
    if bare is None:
        return None
    sides = equated(bare)
    if len(sides) > 1:
        last, last_unit = parted(sides[-1])
        if not unit and last_unit:
            unit, sides[-1] = last_unit, last
        bare = _end(sides)
    return _with_unit(_rational(bare), unit) if bare else None


def _mixed(said: str) -> str | None:
    """`1 h 30 min` or `two hours`, which a name may precede."""
    named = _NAMED_VALUE.match(said)
    start = named.end() if named else 0
    value = said[start:].strip()
    if in_digits := worded(value):
        return _with_unit(re.sub(r"\s+", "", said[:start]) + str(in_digits[0]), in_digits[1])
    quantity = mixed(value)
    if quantity is None or quantity[3] < len(value):
        return None
    return re.sub(r"\s+", "", said[:start]) + quantity[0]


def _rational(bare: str) -> str:
    """A number as an integer or `p/q`, also after a name."""
    name, equals, value = bare.rpartition("=")
    found = number(value) if not name or NAME.fullmatch(name) else None
    return bare if found is None else f"{name}{equals}{found}"


def _scaled(said: str) -> str | None:
    """The value of `5 million cars` or `twenty-five`, with its unit."""
    base, factor, unit = scaled(without_currency(said), letters="")
    value = number(base) if factor > 1 else None
    if value is not None:
        return _with_unit(str(value * factor), unit)
    worded = in_words(said)
    return None if worded is None else str(worded)


def _with_unit(bare: str, unit: str) -> str:
    if not unit:
        return bare
    return bare + ("" if unit in "%°" else " ") + re.sub(r"\s*\^\s*\{?\s*(-?\d)\s*\}?", r"^\1", " ".join(unit.split()))


def _tidy(text: str) -> str | None:
    """Mathematics without layout; None if it is cut short."""
    bare = re.sub(r"\s+", " ", typed(text)).strip()
    kept: list[str] = []
    depth, last = 0, 0
    for space in _SPACE.finditer(bare):
        for character in bare[last : space.start()]:
            depth += (character in "([{") - (character in ")]}")
        spaced_list = space[0].startswith(",") and (depth <= 0 or re.match(r"\d{3}(?!\d)", bare[space.end() :]))
        keep = bool(space[1] or space[2]) or bool(spaced_list)
        kept += [bare[last : space.start()], space[0] if keep else space[0].rstrip(" ")]
        last = space.end()
    bare = "".join([*kept, bare[last:]])
    bare = re.sub(r"([_^])\{(\w)\}(?![\dA-Za-z])", r"\1\2", bare)
    opened = bare.replace("\\{", "").replace("\\}", "")
    if opened.count("{") != opened.count("}") or bare.endswith(tuple("+-*/^=,<>")):
        return None
    return bare


def _items(said: str) -> list[str]:
    """The answers that a text lists by name, or joins with `and` or `or`."""
    groups = [_named_items(group) for group in at_depth_0(said, ";")]
    if len(groups) > 1 and len({len(group) for group in groups}) == 1 and len(groups[0]) > 1:
        values = [[equated(re.sub(r"\s+", "", item))[-1] for item in group] for group in groups]
        return [f"({','.join(group)})" for group in values]  # p=5, q=2; p=7, q=2
    parts = [item.strip() for part in _AND.split(said) for item in _named_items(part.strip())]
    return [part for part in parts if part]


def _named_items(text: str) -> list[str]:
    """Split `x=1, y=2` at its commas if all items have names; otherwise the whole text."""
    items = at_depth_0(text, ",;")
    return items if len(items) > 1 and all(_named(item) for item in items) else [text]


def _named(item: str) -> bool:
    sides = equated(re.sub(r"\s+", "", item))
    return len(sides) == 2 and bool(NAME.fullmatch(sides[0])) and bool(sides[1])


def _joined(items: list[str]) -> str | None:
    """`x=1, y=2` for values of several names; only the values if one name has several."""
    found = []
    for item in items:
        bare = _tidy(item)
        if bare is None:
            return None
        sides = equated(bare)
        name = sides[0] if len(sides) == 2 and NAME.fullmatch(sides[0]) else ""
        value = number(sides[-1])
        found.append((name, (sides[-1] if name else bare) if value is None else str(value)))
    names = {name for name, _ in found}
    if len(names - {""}) > 1 or (len(names) > 1 and found[0][0] == ""):
        return ", ".join(f"{name}={value}" if name else value for name, value in found)
    return ", ".join(value for _, value in found)


def _end(sides: list[str]) -> str:
    """The end of a chain of equalities that opens with a sum, or with a name, which stays."""
    named = NAME.fullmatch(sides[0]) and not APPLIED.match(sides[0])
    constant = _CONSTANT.fullmatch(sides[-1])
    if not named and not (constant and _SUM.fullmatch(sides[0])):
        return "=".join(sides) if len(sides) == 2 or not constant else sides[-1]
    is_tuple = sides[0].startswith("(")
    items = at_depth_0(sides[-1], ",")
    if not named or is_tuple or len(items) > 1 or _WORD.fullmatch(sides[-1]):
        return sides[-1]
    return f"{sides[0]}={sides[-1]}"


_WORD = re.compile(r"[A-Za-z]{3,}")
_MEANING = {
    "all real numbers": r"(-\infty,\infty)", "all reals": r"(-\infty,\infty)", "empty set": r"\emptyset",
    "the empty set": r"\emptyset", "\\{\\}": r"\emptyset", "no solution": r"\emptyset",
    "no solutions": r"\emptyset", "no real solutions": r"\emptyset", "no real solution": r"\emptyset",
}  # fmt: skip


@dataclass(frozen=True)
class Formula:
    """A canonical expression. `values` maps names to values if there are several; otherwise `maths` holds the
    mathematics, which may open with a name and `=`."""

    text: str
    maths: str
    unit: Unit | None
    values: dict[str, str]

    @property
    def unnamed(self) -> str:
        """The mathematics without a leading name and equals sign."""
        sides = equated(self.maths)
        return "=".join(sides[1:]) if len(sides) > 1 and NAME.fullmatch(sides[0]) else self.maths

    @property
    def items(self) -> list[str]:
        """The items of a list or of a pair of coordinates."""
        listed = re.fullmatch(r"\\?\{(.*?)\\?\}|\(([^()]*)\)|(.*)", self.text)
        inner = next((group for group in listed.groups() if group), "") if listed else ""
        return [item.strip() for item in at_depth_0(inner, ",")]

    @property
    def name(self) -> str:
        """The name before a leading equals sign; empty if there is none."""
        return equated(self.maths)[0] if self.is_named else ""

    @property
    def is_constant(self) -> bool:
        """Whether the mathematics without a name is a constant."""
        return bool(_CONSTANT.fullmatch(self.unnamed))

    @property
    def is_named(self) -> bool:
        """Whether the mathematics opens with a name and an equals sign."""
        return self.unnamed != self.maths


def formula(text: str) -> Formula:
    """Split a canonical expression into its parts."""
    items = at_depth_0(text, ",")
    if len(items) > 1 and all(_named(item) for item in items):
        pairs = [equated(item.strip()) for item in items]
        return Formula(text, text, None, {pair[0]: pair[1] for pair in pairs})
    name, value = _at_name(text)
    if (quantity := mixed(value)) and quantity[3] == len(value):
        return Formula(text, name + quantity[1], Unit("whole", quantity[2]), {})
    maths, unit = parted(value)
    return Formula(text, name + maths if unit else text, unit_of(unit, close=unit in "%°") if unit else None, {})


def _at_name(text: str) -> tuple[str, str]:
    """A leading name with its equals sign, and the rest."""
    name, equals, value = text.partition("=")
    return (name + equals, value) if equals and NAME.fullmatch(name) and value else ("", text)


def maths_list(text: str) -> list[str]:
    """Split a text at `and` and `or`."""
    return _AND.split(text)


def value_of(text: str) -> Fraction | None:
    """The number that a canonical expression equals, without its unit; None if it is not a number."""
    maths = formula(text).unnamed
    value = number(maths)
    return value if value is not None else decimal_comma(maths)
