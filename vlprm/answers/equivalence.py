"""Whether two numbers or expressions that are written in different ways are equal.

Expressions are compared by Math-Verify, in a child process that is reused and has a time limit.

Math-Verify keeps time by signals, which no thread but the main one may set, and sympy computes 10**10**10 when it is
asked to. Here the parent keeps the time: a child that is late, or has died, is ended, and there is no result.
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
from fractions import Fraction
from math import floor
from pathlib import Path

from vlprm.answers.plain import number

LIMIT = 5.0  # seconds for a pair
START = 60.0  # seconds in which the child has imported sympy

_lock = threading.Lock()
_child: subprocess.Popen[str] | None = None


def same_float(answer: str, expected: str, gold: str) -> bool:
    """Whether a canonical answer is the gold number when it is rounded to as many decimals as `gold` is written with;
    where gold is a fraction or has an exponent, whether they differ by less than a thousandth."""
    said, right = Fraction(answer), Fraction(expected)
    written = re.fullmatch(r"[^\d.]*[\d,]*(?:\.(\d+))?[^\d.]*", gold)
    if not written:
        return abs(said - right) < abs(right) / 1000
    units: int = 10 ** len(written[1] or "")
    return floor(said * units + Fraction(1, 2)) == floor(right * units + Fraction(1, 2))


def same_expression(answer: str, gold: str) -> bool | None:
    """Whether two canonical expressions have the same value; None where that was not found out in time."""
    numbers = [number(text) for text in (answer, gold)]
    if None not in numbers:
        return numbers[0] == numbers[1]
    # Math-Verify takes a word for the product of its letters: an anagram would be equal.
    if any(re.fullmatch(r"[A-Za-z]{3,}", text) for text in (answer, gold)):
        return answer.casefold() == gold.casefold()
    with _lock:
        return _ask(json.dumps([gold, answer]))


def _ask(question: str) -> bool | None:
    global _child
    if _child is None:
        _child = _started()
    assert _child.stdin is not None
    try:
        _child.stdin.write(question + "\n")
        _child.stdin.flush()
        said = _line(_child, LIMIT)
    except BrokenPipeError:
        said = ""
    if not said:
        _end()
        return None
    return {"true": True, "false": False}.get(said.strip())  # null: Math-Verify found nothing out


def _started() -> subprocess.Popen[str]:
    # -P: the child's folder is ours, and no module of it may stand in for one of Python's.
    command = [sys.executable, "-P", str(Path(__file__).with_name("math_child.py"))]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if not _line(child, START):
        child.kill()
        raise RuntimeError("math-verify did not start; pip install math-verify, and see what it wrote above")
    return child


def _line(child: subprocess.Popen[str], seconds: float) -> str:
    """What the child says next: one line a question, so that nothing is ever left in the reader's buffer."""
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
    """A forked process starts a child of its own: two that read one pipe would take each other's answers."""
    global _child, _lock
    _child, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
