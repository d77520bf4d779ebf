"""Rewrite mathematics into forms that Math-Verify reads as a person does."""

from __future__ import annotations

import re

from vlprm.answers.canonical import decimal
from vlprm.answers.formula import at_depth_0, equated
from vlprm.answers.names import FUNCTIONS
from vlprm.answers.plain import number, places

_BOUND = re.compile(r"\\(?:sum|prod|int|lim|binom)(?![A-Za-z])")
_ANGLE = re.compile(r"(\d+(?:\.\d+)?)(?:°|\^\{?\\circ\}?)")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_FACTOR = re.compile(r"(?<=[\d}])([A-Za-z]$|i(?![A-Za-z]))")
_ARGUMENT_AT_END = re.compile(rf"\\(?:{'|'.join(FUNCTIONS)})\^\{{?\d+\}}?[A-Za-z]$")  # sin^2 x
_ONE_SIDED = re.compile(r"([A-Za-z])(<|>|\\leq|\\geq)([^,<>\\]+|\\infty|-?\\(?:frac|sqrt)[^,<>]+)")
_INTERVAL = re.compile(r"[(\[][^()\[\]]*\\infty[^()\[\]]*[)\]]|\\cup")
_POINT = re.compile(r"[A-Z]'?=?(\([^()]*,[^()]*\))")
_SET_BUILDER = re.compile(r"\\?\{[A-Za-z](?:\\in\s?(?:\\mathbb\{?R\}?|R))?(?:\\mid|\||:)\s?([^{}|:]*?)\\?\}")
_CONSTANT = re.compile(r"[^A-Za-z=<>:,]+|\\(?:frac|sqrt|pi)[^A-Za-z=<>:,]*")


def written(text: str) -> str:
    """The text for Math-Verify, which compares long decimals inexactly, reads a last letter as a unit or an imaginary
    part, and knows no degrees."""
    value = number(text)
    if value is not None:
        length = places(value)
        return text if length is None or length < 4 else decimal(value)
    if _TRIGONOMETRIC.search(text):
        text = _ANGLE.sub(r"\\frac{\1\\pi}{180}", text)
    return text if _BOUND.search(text) or _ARGUMENT_AT_END.search(text) else _FACTOR.sub(r"\\cdot{\1}", text)


def paired(said: str, right: str) -> tuple[str, str]:
    """Two expressions in one form, if one is an interval and the other an inequality, or one an equation and the other
    its solution."""
    said, right = _alike(said, right), _alike(right, said)
    return _solved(_in_intervals(said, right), right), _solved(_in_intervals(right, said), said)


def _alike(text: str, other: str) -> str:
    r"""The coordinates of a point `P(3,4)`, if the other expression is a pair; the condition of `\{x \mid x>2\}`, if it
    is none of a set."""
    if (point := _POINT.fullmatch(text)) and other.startswith("("):
        return point[1]
    condition = _SET_BUILDER.fullmatch(text)
    return condition[1] if condition and not _SET_BUILDER.fullmatch(other) else text


def _in_intervals(text: str, other: str) -> str:
    """`x<2, x>5` as a union of intervals, if the other expression has intervals."""
    items = [item.strip() for item in at_depth_0(text, ",")]
    found = [_ONE_SIDED.fullmatch(item) for item in items]
    if len(items) < 2 or None in found or not _INTERVAL.search(other):
        return text
    parts = [item for item in found if item]
    return r"\cup".join(_interval(part[2], part[3]) for part in parts) if len({p[1] for p in parts}) == 1 else text


def _interval(relation: str, bound: str) -> str:
    if relation in ("<", r"\leq"):
        return rf"(-\infty,{bound}{']' if relation != '<' else ')'}"
    return rf"{'[' if relation != '>' else '('}{bound},\infty)"


def _solved(text: str, other: str) -> str:
    """`5` as `x=5`, if the other expression is an equation in one variable."""
    sides = equated(other)
    variables = set(re.findall(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])", other))
    if len(sides) != 2 or len(variables) != 1 or not _CONSTANT.fullmatch(text):
        return text
    return f"{variables.pop()}={text}"
