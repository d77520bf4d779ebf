"""Decide whether two numbers or expressions are equal when they are written differently.

Math-Verify compares expressions in a child process, which is reused. Math-Verify's own time limit uses signals, which
work in the main thread only, and sympy evaluates 10**10**10 if asked. So the parent process keeps the time: it kills a
child that is late, and the pair has no result.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import select
import subprocess
import sys
import threading
import time
from dataclasses import replace
from fractions import Fraction
from math import comb, floor
from pathlib import Path

from vlprm.answers.clock import same_time
from vlprm.answers.formula import Formula, formula
from vlprm.answers.names import differ
from vlprm.answers.plain import decimal_comma, number, places
from vlprm.answers.quantities import factor
from vlprm.answers.rewriting import paired, written
from vlprm.answers.units import Unit

LIMIT = 5.0  # seconds of a processor per pair, so that a busy machine finds the same pairs equal
WAIT = 300.0  # seconds until a child that gets no processor is given up
START = 60.0  # seconds for the child to import sympy

_WORDS = re.compile(r"[A-Za-z]{3,}|[A-Za-z',-]{12,}")
_THOUSANDS = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)[kK]")
_RATIO = re.compile(r"\d{1,9}(?:\.\d{1,9})?(?::\d{1,9}(?:\.\d{1,9})?)+")
_CHOICES = re.compile(r"C\((\d{1,3}),\s?(\d{1,3})\)")
_GOES_ON = re.compile(r"\\[lcd]?dots|\.\.\.|…")

_lock = threading.Lock()
_child: subprocess.Popen[str] | None = None


def same_float(answer: str, expected: str, gold: str) -> bool:
    """Whether a canonical answer, rounded to the decimals of `gold`, is the gold number (half away from zero). If gold
    is a fraction or has an exponent: whether the relative difference is below 1/1000."""
    said, right = Fraction(answer), Fraction(expected)
    written = re.fullmatch(r"[^\d.]*[\d,]*(?:\.(\d+))?[^\d.]*", gold)
    if not written:
        return abs(said - right) < abs(right) / 1000
    units: int = 10 ** len(written[1] or "")
    return _rounded(said * units) == _rounded(right * units)


def _rounded(value: Fraction) -> int:
    return floor(abs(value) + Fraction(1, 2)) * (-1 if value < 0 else 1)


def same_expression(answer: str, gold: str) -> bool | None:
    """Whether two canonical expressions have the same value; None if the comparison took too long. Units, names and
    words are compared here, because Math-Verify ignores them."""
    if (time := same_time(answer, gold)) is not None:
        return time
    said, right = formula(answer), formula(gold)
    if said.values and right.values:
        return _same_values(said.values, right.values)
    if said.values or right.values:
        return _same_in_order(said, right)
    said = _in_unit(said, right.unit)
    if (said.unit and said.unit.clashes(right.unit)) or (right.unit and right.unit.clashes(said.unit)):
        return False
    if not (said.unit and right.unit) and None in (number(said.unnamed), number(right.unnamed)):
        said, right = _with_variables(said, right), _with_variables(right, said)
    same = _same_named(said, right)
    if same is False and "%" in (said.unit and said.unit.name, right.unit and right.unit.name):
        same = _same_share(said, right)
    return same


def _in_unit(said: Formula, unit: Unit | None) -> Formula:
    """The expression in the given unit, if its own unit measures the same: `2 h` as `120 min`."""
    times = factor(said.unit.name, unit.name) if said.unit and unit and said.unit.name != unit.name else None
    if times is None or unit is None or "," in said.maths:
        return said
    value = number(said.unnamed)
    scaled = (
        str(value * times)
        if value is not None
        else rf"\frac{{{times.numerator}}}{{{times.denominator}}}\cdot({said.unnamed})"
    )
    name = f"{said.name}=" if said.is_named else ""
    return replace(said, maths=name + scaled, unit=replace(unit, kind="unit"))


def _same_named(said: Formula, right: Formula) -> bool | None:
    """Compare the mathematics of two expressions. A name may be left out, but two names must be of one value."""
    if said.is_named != right.is_named:
        same = _same_maths(said.unnamed, right.unnamed)
        is_equation = "=" in (right if said.is_named else said).maths
        return _same_maths(said.maths, right.maths) if same is False and is_equation else same
    both_constant = said.is_constant and right.is_constant
    if said.is_named and (both_constant or _is_applied(said, right)) and differ(said.name, right.name):
        return False
    if said.is_named and both_constant:
        return _same_maths(said.unnamed, right.unnamed)
    same = _same_maths(said.maths, right.maths)
    if same is False and _same_function(said.name, right.name):
        same = _same_maths(said.unnamed, right.unnamed)
    return same


def _is_applied(said: Formula, right: Formula) -> bool:
    """Whether one name is a function at a number: f(2)."""
    return any("(" in name and re.search(r"\d", name) for name in (said.name, right.name))


def _same_function(said: str, right: str) -> bool:
    """Whether one name is `y` and the other `f(x)`."""
    return "y" in (said, right) and any(re.fullmatch(r"[A-Za-z]\([a-z]\)", name) for name in (said, right))


def _with_variables(formula: Formula, other: Formula) -> Formula:
    """Read a unit of one letter as a variable if the other expression has it in its mathematics: `2 m` is then `2m`."""
    name = formula.text[len(formula.maths) :].strip()
    return replace(formula, maths=formula.text.replace(" ", "")) if len(name) == 1 and name in other.maths else formula


def _same_values(said: dict[str, str], right: dict[str, str]) -> bool | None:
    """Whether all names have the same values."""
    if said.keys() != right.keys():
        return False
    found = [_same_maths(said[name], right[name]) for name in right]
    return None if None in found and False not in found else all(found)


def _same_in_order(said: Formula, right: Formula) -> bool | None:
    """Compare named values with a list without names: in order, or in any order if the names belong to one variable
    (x_1, x_2)."""
    named, items = (said.values, right.items) if said.values else (right.values, said.items)
    if len(named) != len(items):
        return False
    if len({re.split(r"[_\d]", name)[0] for name in named}) == 1:
        return _same_maths(", ".join(named.values()), ", ".join(items))
    found = [_same_maths(value, item) for value, item in zip(named.values(), items, strict=True)]
    return None if None in found and False not in found else all(found)


def _same_share(said: Formula, right: Formula) -> bool:
    """Whether a percentage equals a share: 28% and 0.28."""
    values = [number(f.unnamed.removesuffix("%")) for f in (said, right)]
    if None in values or (said.unit and right.unit):
        return False
    parts = [v / 100 if f.unit else v for v, f in zip(values, (said, right), strict=True) if v is not None]
    return parts[0] == parts[1]


def _same_maths(answer: str, gold: str) -> bool | None:
    if answer == gold:
        return True
    said, right = number(answer), number(gold)
    if said is not None and right is not None:
        return said == right or _approximates(said, right) or _approximates(right, said)
    commas = [decimal_comma(text) if "," in text else None for text in (answer, gold)]
    if (said is None) != (right is None) and commas != [None, None]:
        return commas[0] == right if said is None else commas[1] == said
    thousands = [_THOUSANDS.fullmatch(text) for text in (answer, gold)]
    if thousands[0] and right is not None:
        return right == 1000 * Fraction(thousands[0][1])
    if thousands[1] and said is not None:
        return said == 1000 * Fraction(thousands[1][1])
    # Math-Verify reads a word as a product of letters, so anagrams would be equal. It drops "and so on".
    if any(_WORDS.fullmatch(text) for text in (answer, gold)):
        return answer.casefold() == gold.casefold()
    if any(_GOES_ON.search(text) for text in (answer, gold)):
        return "".join(answer.split()) == "".join(gold.split())
    if all(text.count(":") > 1 and _RATIO.fullmatch(text) for text in (answer, gold)):
        return _same_ratio(answer.split(":"), gold.split(":"))
    chosen = [_CHOICES.fullmatch(text) for text in (answer, gold)]
    if chosen[0] and right is not None:
        return comb(int(chosen[0][1]), int(chosen[0][2])) == right
    with _lock:
        said_in_form, right_in_form = paired(answer, gold)
        return _ask(json.dumps([written(right_in_form), written(said_in_form)]))


def _same_ratio(said: list[str], right: list[str]) -> bool:
    """Whether two ratios are proportional."""
    pairs = list(zip(map(Fraction, said), map(Fraction, right), strict=False))
    return len(said) == len(right) and all(a * pairs[0][1] == b * pairs[0][0] for a, b in pairs)


def _approximates(decimal: Fraction, exact: Fraction) -> bool:
    """Whether a decimal with six or more digits after the point equals the exact value, truncated to those digits."""
    length = places(decimal)
    return length is not None and length >= 6 and places(exact) is None and abs(decimal - exact) * 10**length < 1


def _ask(question: str) -> bool | None:
    global _child
    if _child is None:
        _child = _started()
    assert _child.stdin is not None
    try:
        _child.stdin.write(question + "\n")
        _child.stdin.flush()
        said = _answer(_child)
    except BrokenPipeError:
        said = ""
    if not said:
        _end()
        return None
    return {"true": True, "false": False}.get(said.strip())  # null: Math-Verify could not decide


def _started() -> subprocess.Popen[str]:
    # -P: no module in the child's folder may shadow one of Python's.
    command = [sys.executable, "-P", str(Path(__file__).with_name("math_child.py"))]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if not _line(child, START):
        child.kill()
        raise RuntimeError("math-verify did not start; pip install math-verify, and read its output above")
    return child


def _answer(child: subprocess.Popen[str]) -> str:
    """The child's next line; empty if the child computes for longer than LIMIT or has ended."""
    begun, deadline = _computed(child), time.monotonic() + WAIT
    left = LIMIT
    while left > 0 and time.monotonic() < deadline:
        if (said := _line(child, max(left, 0.1))) or child.poll() is not None:
            return said
        left = LIMIT - (_computed(child) - begun)
    return ""


def _computed(child: subprocess.Popen[str]) -> float:
    """Seconds of a processor that the child used so far; where the system does not tell, seconds of the clock."""
    try:
        said = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return time.monotonic()
    return (int(said[11]) + int(said[12])) / os.sysconf("SC_CLK_TCK")


def _line(child: subprocess.Popen[str], seconds: float) -> str:
    """The child's next line. Each question gets one line, so the buffer is empty between questions."""
    assert child.stdout is not None
    ready, _, _ = select.select([child.stdout], [], [], seconds)
    return child.stdout.readline() if ready else ""


@atexit.register
def _end() -> None:
    global _child
    if _child is not None:
        _child.kill()
        _child.communicate()
        _child = None


def _forget() -> None:
    """Give a forked process a child of its own: two processes on one pipe would read each other's answers."""
    global _child, _lock
    _child, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
