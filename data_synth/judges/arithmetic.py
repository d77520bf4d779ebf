r"""Find a false equality of numbers in a text, such as `3 + 4 = 8`. Numbers are exact fractions, and nothing of the
text is executed.

A statement is judged only if it can be nothing else: all of it is numbers, the signs + - * / ^ and brackets, and the
word before it leads to a statement (`so`, `is`). Sentences that round, suppose or deny are passed over, and so are a
rounded result, a running sum (`3 + 4 = 7 + 2 = 9`) and decimal commas.
"""

from __future__ import annotations

import re
from fractions import Fraction

_LATEX = (
    (re.compile(r"\\[dt]?frac\s*\{([\d.]+)\}\s*\{([\d.]+)\}"), r"(\1/\2)"),
    (re.compile(r"\\(?:times|cdot|ast)(?![A-Za-z])|[\u00d7\u00b7\u22c5\u2217]|(?<=[\d)]) x (?=[\d(])"), "*"),
    (re.compile(r"\\div(?![A-Za-z])|\u00f7"), "/"),
    (re.compile(r"[\u2212\u2013]"), "-"),
    (
        re.compile(r"\\(?:left|right)(?=[()])|\\[,;!]|\\[()\[\]]|\$|\^?\\circ(?![A-Za-z])|\^\{\\circ\}|\u00b0|[*_]{2}"),
        "",
    ),
    (re.compile(r"\^\{(\d+)\}"), r"^\1"),
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),
)
_SENTENCE = re.compile(r"[;!?\n]|\.(?!\d)|,(?!\d)")
_SIDE = r"[-+\d.()*/^ ]*\d[-+\d.()*/^ ]*"
_CHAIN = re.compile(rf"(?<![\d.]){_SIDE}(?:={_SIDE})+")
# Words after which an equality is not a statement of exact numbers.
_HEDGED = re.compile(
    r"\u2248|\u2260|!=|<|>|\u2264|\u2265|%|~|\d:\d|\u221a|\\|\b(?:about|approx\w*|around|roughly|nearly|almost|round\w*|if|suppose\w*|assum\w*|would"
    r"|were|not|never|wrong\w*|incorrect\w*|mistake\w*|instead|mod|modulo|base|binary|hex\w*|remainder|clock|am|pm|hundred"
    r"|thousand|million|billion|dozen|percent|per|or)\b|n't\b",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"\s*(\d+\.\d+|\.\d+|\d+|[-+*/^()])")
# After another word, the first number may belong to a name: `angle 1 + 2 = 180`.
_LEADS = re.compile(
    r"\b(?:so|is|are|was|equals?|gives?|gets?|got|has|have|then|thus|hence|therefore|that|and|because|since|means)$",
    re.IGNORECASE,
)
_EDGE = re.compile(r"[A-Za-z\d^)\]}'_\u00b2\u00b3]")  # what touches a statement and may belong to it
MOST_DIGITS, MOST_POWER, MOST_TOKENS, LONGEST = 15, 12, 40, 4000


def false_equality(text: str) -> str | None:
    """The first false equality that a text states; None if there is none."""
    plain = text[:LONGEST]
    for pattern, by in _LATEX:
        plain = pattern.sub(by, plain)
    for sentence in _SENTENCE.split(plain):
        if "=" in sentence and not _HEDGED.search(sentence):
            for chain in _CHAIN.finditer(sentence):
                if found := _false_in(chain, sentence):
                    return found
    return None


def _false_in(chain: re.Match[str], sentence: str) -> str | None:
    before, after = sentence[: chain.start()].rstrip(), sentence[chain.end() :]
    # A letter, a bracket or a sign on the edge makes it part of a larger formula.
    if re.search(r"[=+*/^(\[{-]$", before) or re.match(r"\s*[-+*/^=(\[{]", after) or _EDGE.match(after):
        return None
    if chain[0].lstrip()[:1] in "+*/^" or (before and _EDGE.match(before[-1]) and chain[0][:1] != " "):
        return None
    if re.search(r"\d,$", sentence[: chain.start()]) or re.match(r",\d", after):
        return None  # a decimal comma
    sides = [side.strip() for side in chain[0].split("=")]
    if before[-1:].isalpha() and not (_LEADS.search(before) and _has_sign(sides[0])):
        return None
    if before and sides[0].startswith("-") and not before.endswith((",", ":")):
        return None  # `A - 3 = 4` without its letter
    values = [_value(side) for side in sides]
    for left, right, value, other in zip(sides, sides[1:], values, values[1:], strict=False):
        if value is None or other is None or not (_has_sign(left) or _has_sign(right)):
            continue
        if value != other and not _rounds(value, right, other) and not _goes_on(value, right):
            return f"{left} = {right}"
    return None


def _has_sign(side: str) -> bool:
    return re.search(r"[\d)]\s*[-+*/^]", side) is not None


def _rounds(value: Fraction, side: str, other: Fraction) -> bool:
    """Whether a side without signs is a rounded form of the value."""
    if _has_sign(side):
        return False
    places = len(side.partition(".")[2])
    unit = Fraction(1, 10**places)
    return value.denominator != 1 and abs(value - other) < unit


def _goes_on(value: Fraction, side: str) -> bool:
    """Whether a side goes on from the value, as in a running sum."""
    first = re.match(r"[-+]?[\d.]+", side)
    return _has_sign(side) and first is not None and _value(first[0]) == value


def _value(text: str) -> Fraction | None:
    """The value of an expression; None if it is not one, or too large."""
    tokens: list[str] = []
    place = 0
    while place < len(text.rstrip()):
        token = _TOKEN.match(text, place)
        if token is None or len(tokens) == MOST_TOKENS:
            return None
        tokens.append(token[1])
        place = token.end()
    try:
        return _Parser(tokens).value()
    except (ValueError, ZeroDivisionError):
        return None


class _Parser:
    """Recursive descent over the tokens of one expression. ValueError if they are not one."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens[::-1]

    def value(self) -> Fraction:
        value = self._sum()
        if self.tokens:
            raise ValueError("more follows")
        return value

    def _taken(self, signs: str) -> str:
        return self.tokens.pop() if self.tokens and self.tokens[-1] in signs else ""

    def _sum(self) -> Fraction:
        value = self._product()
        while sign := self._taken("+-"):
            term = self._product()
            value = value + term if sign == "+" else value - term
        return value

    def _product(self) -> Fraction:
        value = self._signed()
        while sign := self._taken("*/"):
            factor = self._signed()
            value = value * factor if sign == "*" else value / factor
        return value

    def _signed(self) -> Fraction:
        return -self._signed() if self._taken("-") else self._power()

    def _power(self) -> Fraction:
        value = self._atom()
        if self._taken("^"):
            power = self._atom()
            if power.denominator != 1 or not 0 <= power <= MOST_POWER:
                raise ValueError("not a small power")
            value **= int(power)
        return value

    def _atom(self) -> Fraction:
        if self._taken("("):
            value = self._sum()
            if not self._taken(")"):
                raise ValueError("an open bracket")
            return value
        if not self.tokens or not self.tokens[-1][-1].isdigit() or len(self.tokens[-1]) > MOST_DIGITS:
            raise ValueError("not a number")
        return Fraction(self.tokens.pop())
