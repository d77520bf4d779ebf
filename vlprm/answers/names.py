"""Whether two names before an equals sign are of different values: `x=1` is not `y=1`."""

from __future__ import annotations

import re

FUNCTIONS = (
    *("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "log", "ln", "exp"),
    *("arcsin", "arccos", "arctan", "arccot", "lg", "det", "gcd", "lcm", "max", "min"),
)
NAME = re.compile(
    r"(?:\\?[A-Za-z]+'?(?:_\{?(?:\\triangle\s?)?[\w,]+\}?)?(?:\([A-Za-z](?:,[A-Za-z])*\))?|\([A-Za-z](?:,\s?[A-Za-z])+\)"
    r"|\\(?:angle|triangle|overline|widehat|vec)\s?\{?[A-Za-z]+\}?|m\\angle\s?[A-Z]+|\|[A-Za-z]+\||[A-Za-z]\([^()]{1,20}\))"
)
# Not a name of one value: sin(x), |x| and f(2) have other values too.
APPLIED = re.compile(rf"\\?(?:{'|'.join(FUNCTIONS)})(?![A-Za-z])|\|[a-z]\||[A-Za-z]\([^A-Za-z()]+\)$")

_ANGLE = re.compile(r"m?\\(?:angle|widehat)\s?\{?([A-Za-z]+)\}?")
_SEGMENT = re.compile(r"\\overline\s?\{?([A-Z]{2})\}?|\|([A-Z]{2})\||([A-Z]{2})")
_FUNCTION = re.compile(r"([A-Za-z])\([A-Za-z,]+\)")
_VARIABLE = re.compile(r"((?:\\[A-Za-z]+|[A-Za-z])'?)(?:_\{?(?:\\triangle\s?)?([\w,]+)\}?)?")
_WORD = re.compile(r"[A-Za-z]{3,}")
_ANY_VALUE = {"answer", "ans", "result", "value", "total", "sum", "solution", "final"}


def differ(said: str, right: str) -> bool:
    """Whether two names are of different values. Names of two kinds (`Area` and `A`) may be of one value, and so may a
    name with and without its index."""
    if APPLIED.match(said) or APPLIED.match(right):
        return said != right
    for pattern, other in (
        (_ANGLE, _other_angle),
        (_SEGMENT, _other_segment),
        (_FUNCTION, _other_function),
        (_VARIABLE, _other_variable),
        (_WORD, _other_word),
    ):
        found = pattern.fullmatch(said), pattern.fullmatch(right)
        if found[0] and found[1]:
            return other(found[0], found[1])
        if found[0] or found[1]:
            return False
    return False


def _other_angle(said: re.Match[str], right: re.Match[str]) -> bool:
    """ABC is CBA, and also B."""
    ways = [{found[1], found[1][::-1], found[1][len(found[1]) // 2]} for found in (said, right)]
    is_short = 1 in (len(said[1]), len(right[1]))
    return not ways[0] & ways[1] if is_short else right[1] not in (said[1], said[1][::-1])


def _other_segment(said: re.Match[str], right: re.Match[str]) -> bool:
    return sorted(said[said.lastindex or 0]) != sorted(right[right.lastindex or 0])


def _other_function(said: re.Match[str], right: re.Match[str]) -> bool:
    return said[1] != right[1]


def _other_variable(said: re.Match[str], right: re.Match[str]) -> bool:
    both_indexed = said[2] is not None and right[2] is not None
    return said[1] != right[1] or (both_indexed and said[2] != right[2])


def _other_word(said: re.Match[str], right: re.Match[str]) -> bool:
    words = said[0].casefold(), right[0].casefold()
    return not (set(words) & _ANY_VALUE or words[0] in words[1] or words[1] in words[0])
