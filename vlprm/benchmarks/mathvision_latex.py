"""The value of a short LaTeX expression, parsed without running the text.

MathVision's official scorer parses answers with latex2sympy2 (1.9.1) and calls Python's `eval` on the result, which is
unsafe for model text. Its successor, latex2sympy2-extended, accepts more (`60\\%`, `2\\frac{1}{2}` as two and a half)
and less (nothing may follow), which changes verdicts. This parser reads the arithmetic that latex2sympy2 reads, and
gives None where the official scorer finds no number. It keeps three peculiarities on which published verdicts depend:

- it stops at the first token that cannot continue (`2\\sqrt{3}}cm` is 2 sqrt 3), but an unknown token means no number;
- numbers side by side are multiplied (`3\\frac{1}{2}` is 1.5, `1 000` is 0), and `:` divides;
- a letter means no number (`5cm`), except in a power of e.

Time and memory are bounded by construction: one pass over the text, a nesting depth of at most 60, integers of at most
20,000 bits. So no timeout is needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

Number = int | float

MAX_DEPTH, MAX_BITS, MAX_FACTORIAL = 60, 20_000, 1_000

_SKIPPED = re.compile(r"(?:\s|\$|~|\\,|\\:|\\displaystyle|\\quad|\\qquad)*")
_NUMBER = re.compile(r"(?:\d+(?:,\d{3})*)?\.\d+|\d+(?:,\d{3})*", re.ASCII)
# Matrix words are single tokens, not products of letters, so the expression ends before them.
_WORDS = "eye|zeros|ones|cols|rows|diag|norm|rank|trace|tr|rref|hstack|vstack|nullspace|orth"
_STOP = re.compile(
    rf"\\rightarrow|\\to(?![a-z])|\\right|\\choose|\\\\|\\[}}]|\\rfloor|\\end{{[pbv]?matrix}}|[)\]}}.&_]|{_WORDS}"
)
_COMMAND = re.compile(
    r"\\(?:[dt]?frac|[dt]?binom|sqrt|pi|cdot|times|div|left|lfloor|log|exp|"
    r"arc(?:sin|cos|tan)|a(?:rc|r)(?:sinh|cosh|tanh)|sinh|cosh|tanh|sin|cos|tan|[{])|[-+*/:^!'(\[{e]"
)

FUNCTIONS: dict[str, Callable[[float], float]] = {
    "\\sin": math.sin, "\\cos": math.cos, "\\tan": math.tan, "\\exp": math.exp,
    "\\sinh": math.sinh, "\\cosh": math.cosh, "\\tanh": math.tanh,
    "\\arcsin": math.asin, "\\arccos": math.acos, "\\arctan": math.atan,
    "\\arsinh": math.asinh, "\\arcosh": math.acosh, "\\artanh": math.atanh,
    "\\arcsinh": math.asinh, "\\arccosh": math.acosh, "\\arctanh": math.atanh,
}  # fmt: skip
_CLOSERS = {"(": ")", "[": "]", "{": "}", "\\{": "\\}", "\\lfloor": "\\rfloor"}
_STARTS = {"\\frac", "\\dfrac", "\\tfrac", "\\binom", "\\dbinom", "\\tbinom", "\\sqrt", "\\pi", "\\left", "\\log", "e"}
_STARTS |= {"number", *_CLOSERS, *FUNCTIONS}


@lru_cache(maxsize=8_192)
def latex_value(text: str) -> Number | None:
    """The value of a text, not rounded; None if it is not a finite number."""
    try:
        value = _Parser(text).relation()
        return value if isinstance(value, int) or math.isfinite(value) else None
    except (_NoNumber, ArithmeticError, ValueError):  # a root of a negative number, a division by zero, a huge float
        return None


class _NoNumber(Exception):
    """The text is not a number."""


class _Parser:
    """Parses a text from left to right. `self.kind` is the kind of the next token, `self.word` its text if it is a
    number.

    The grammar, with the rule names of latex2sympy2:
        additive: mp (('+' | '-') mp)*          mp: unary (('*' | '/' | ':' | ...) unary)*
        unary: ('+' | '-') unary | postfix+     postfix: exp '!'*      exp: comp ('^' (number | pi | '{' additive '}'))*
    """

    def __init__(self, text: str) -> None:
        self.text, self.place, self.depth = text, 0, 0
        self.advance()

    def advance(self) -> None:
        """Read the next token: `end` for one that cannot continue the expression. Raises _NoNumber for an unknown
        one."""
        self.place = _end(_SKIPPED, self.text, self.place)
        self.kind, self.word = "end", ""
        if self.place == len(self.text):
            return
        if number := _NUMBER.match(self.text, self.place):
            self.kind, self.word, self.place = "number", number[0], number.end()
            if self.text.startswith("\\%", self.place):
                self.word, self.place = self.word + "%", self.place + 2
        elif _STOP.match(self.text, self.place):
            return
        elif command := _COMMAND.match(self.text, self.place):
            self.kind, self.place = command[0], command.end()
        else:
            raise _NoNumber

    def closes(self, closer: str) -> None:
        """Skip the token that closes a group, which is an `end` token."""
        self.place = _end(_SKIPPED, self.text, self.place)
        if self.kind != "end" or not self.text.startswith(closer, self.place):
            raise _NoNumber
        self.place += len(closer)

    def relation(self) -> Number:
        value = self.additive()
        if self.kind != "end":
            raise _NoNumber
        return value

    def additive(self) -> Number:
        value = self.product()
        while self.kind in ("+", "-"):
            sign = 1 if self.kind == "+" else -1
            self.advance()
            value = value + sign * self.product()
        return value

    def product(self, function_ends: bool = False) -> Number:
        value = self.unary(function_ends)
        while self.kind in ("*", "\\cdot", "\\times", "/", "\\div", ":"):
            divides = self.kind in ("/", "\\div", ":")
            self.advance()
            right = self.unary(function_ends)
            value = value / right if divides else _times(value, right)
        return value

    def unary(self, function_ends: bool = False) -> Number:
        sign = 1
        while self.kind in ("+", "-"):
            sign = sign if self.kind == "+" else -sign
            self.advance()
        value = self.postfix()
        while self.kind in _STARTS and not (function_ends and self.kind in (*FUNCTIONS, "\\log", "\\sqrt")):
            value = _times(value, self.postfix())
        return sign * value

    def postfix(self) -> Number:
        value = self.power()
        while self.kind in ("!", "'"):  # `'` transposes, which does not change a number
            if self.kind == "!":
                value = _factorial(value)
            self.advance()
            self.kind = "end" if self.kind == "^" else self.kind  # a postfix expression has no power
        return value

    def power(self) -> Number:
        if self.kind == "e":
            self.advance()
            if self.kind != "^":
                raise _NoNumber
            value: Number = math.exp(self.exponent())
        else:
            value = self.atom()
        while self.kind == "^":
            value = _power(value, self.exponent())
        return value

    def exponent(self) -> Number:
        self.advance()
        if self.kind not in ("number", "\\pi", "{"):
            raise _NoNumber
        return self.atom()

    def atom(self) -> Number:
        if self.depth == MAX_DEPTH:
            raise _NoNumber
        self.depth += 1
        value = self.read_atom()
        self.depth -= 1
        return value

    def read_atom(self) -> Number:
        kind, word = self.kind, self.word
        if kind in _CLOSERS or kind == "\\left":
            return self.group()
        if kind == "\\sqrt":
            return self.root()
        if kind == "\\log" or kind in FUNCTIONS:
            return self.function()
        if kind.endswith(("frac", "binom")):
            self.advance()
            above, below = self.braced(), self.braced()
            return above / below if kind.endswith("frac") else _binomial(above, below)
        if kind not in ("number", "\\pi"):
            raise _NoNumber
        self.advance()
        return math.pi if kind == "\\pi" else _number(word)

    def group(self) -> Number:
        left = self.kind == "\\left"
        if left:
            self.advance()
        opener = self.kind
        if opener not in _CLOSERS:
            raise _NoNumber
        self.advance()
        value = self.additive()
        if left:
            self.closes("\\right")
        self.closes(_CLOSERS[opener])
        self.advance()
        return math.floor(value) if opener == "\\lfloor" else value

    def braced(self) -> Number:
        if self.kind != "{":
            raise _NoNumber
        return self.atom()

    def root(self) -> Number:
        self.advance()
        if self.kind == "[":
            degree = self.atom()
            return _power(self.braced(), 1 / degree)
        return math.sqrt(self.braced())

    def function(self) -> Number:
        """`\\sin^{-1}` is the inverse; any other power applies to the value. An argument without parentheses is a
        product that ends before the next function."""
        name, exponent, base = self.kind, None, 10.0
        self.advance_past_subscript(name)
        if self.kind == "_":
            base = float(self.exponent())
        if self.kind == "^":
            exponent = self.exponent()
        value = self.atom() if self.kind == "(" else self.product(function_ends=True)
        if name == "\\log":
            result = math.log(value, base)
        elif exponent == -1 and "\\arc" + name[1:] in FUNCTIONS:
            return FUNCTIONS["\\arc" + name[1:]](value)
        else:
            result = FUNCTIONS[name](value)
        return result if exponent is None else _power(result, exponent)

    def advance_past_subscript(self, name: str) -> None:
        """Only a logarithm has a subscript: its base."""
        self.advance()
        if name == "\\log" and self.kind == "end" and self.text.startswith("_", self.place):
            self.kind, self.place = "_", self.place + 1


def _end(pattern: re.Pattern[str], text: str, place: int) -> int:
    found = pattern.match(text, place)
    assert found is not None, "the pattern matches the empty text"
    return found.end()


def _number(word: str) -> Number:
    """The float that results from printing sympy's rational and dividing in Python, so that later rounding is
    identical."""
    exact = Fraction(word.rstrip("%").replace(",", "")) / (100 if word.endswith("%") else 1)
    return exact.numerator if exact.denominator == 1 else exact.numerator / exact.denominator


def _times(a: Number, b: Number) -> Number:
    if isinstance(a, int) and isinstance(b, int) and a.bit_length() + b.bit_length() > MAX_BITS:
        raise _NoNumber
    return a * b


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > MAX_BITS:
        raise _NoNumber
    value = base**exponent
    if isinstance(value, complex):
        raise _NoNumber
    return value


def _factorial(value: Number) -> int:
    if not isinstance(value, int) or not 0 <= value <= MAX_FACTORIAL:
        raise _NoNumber
    return math.factorial(value)


def _binomial(above: Number, below: Number) -> int:
    if not isinstance(above, int) or not isinstance(below, int) or not 0 <= above <= MAX_FACTORIAL:
        raise _NoNumber
    return math.comb(above, below) if below >= 0 else 0
