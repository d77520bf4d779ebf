"""The child process of `vlprm.answers.equivalence`: reads a line `[gold, answer]`, writes true, false or null.

Math-Verify parses with a grammar, so no model output is run as code. A pair that needs more memory than LIMIT gets
null.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from sympy import FiniteSet, Tuple

LIMIT = 4 << 30  # bytes of address space; sympy takes about one
ALIKE = 1e-5  # relative difference up to which numbers are equal
DIGITS = 30


def same(gold: str, answer: str) -> bool | None:
    """Whether two expressions are equal; None if the gold expression does not parse."""
    readers = [LatexExtractionConfig(), ExprExtractionConfig()]
    parsed = [parse(f"${text}$", readers, parsing_timeout=None) for text in (gold, answer)]
    if not parsed[0]:
        return None
    if not verify(parsed[0], parsed[1], timeout_seconds=None, allow_set_relation_comp=True):
        return False
    return not (parsed[1] and differ(parsed[0][0], parsed[1][0]))


def differ(gold: Any, answer: Any) -> bool:
    """Whether two values differ that Math-Verify, which rounds to six digits, may call equal. A factor of 100 is a
    percentage and not a difference. Sets and tuples differ if an item of one has no equal in the other."""
    if isinstance(gold, FiniteSet | Tuple) and isinstance(answer, FiniteSet | Tuple):
        return any(all(differ(item, other) for other in answer.args) for item in gold.args)
    if not all(getattr(value, "is_number", False) and hasattr(value, "evalf") for value in (gold, answer)):
        return False
    said, right = answer.evalf(DIGITS), gold.evalf(DIGITS)
    return not any(abs(x - f * y) <= ALIKE * abs(x) for f in (1, 100) for x, y in ((said, right), (right, said)))


def main() -> None:
    """Answer one line per question until standard input closes."""
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    logging.disable()
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            answer = same(*json.loads(line))
        except (Exception, RecursionError, MemoryError):  # any failure of sympy: the pair has no result
            answer = None
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
