"""The child of `vlprm.answers.equivalence`: a line `[gold, answer]` in, a line true, false or null out. Reads no model
text as code: Math-Verify parses by a grammar. A pair that needs more memory than LIMIT is one without a result."""

from __future__ import annotations

import json
import logging
import resource
import sys
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

LIMIT = 4 << 30  # bytes of address space; sympy takes about one
ALIKE = 1e-5  # by how much of the larger one equal numbers may differ
DIGITS = 30


def same(gold: str, answer: str) -> bool | None:
    """Equal, not equal, or None where the gold expression does not parse as one."""
    readers = [LatexExtractionConfig(), ExprExtractionConfig()]
    parsed = [parse(f"${text}$", readers, parsing_timeout=None) for text in (gold, answer)]
    if not parsed[0]:
        return None
    if not verify(parsed[0], parsed[1], timeout_seconds=None, allow_set_relation_comp=True):
        return False
    return not (parsed[1] and differ(parsed[0][0], parsed[1][0]))


def differ(gold: Any, answer: Any) -> bool:
    """Whether two numbers differ that Math-Verify, which rounds to six digits after the point, may call equal. What is
    hundred times the other is a percentage."""
    if not all(getattr(value, "is_number", False) and hasattr(value, "evalf") for value in (gold, answer)):
        return False
    said, right = answer.evalf(DIGITS), gold.evalf(DIGITS)
    return not any(abs(x - f * y) <= ALIKE * abs(x) for f in (1, 100) for x, y in ((said, right), (right, said)))


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    logging.disable()
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            answer = same(*json.loads(line))
        except (Exception, RecursionError, MemoryError):  # whatever sympy fails of, the pair has no result
            answer = None
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
