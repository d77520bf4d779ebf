"""The child of `vlprm.answers.equivalence`: a line `[gold, answer]` in, a line true, false or null out. Reads no model
text as code: Math-Verify parses by a grammar. A pair that needs more memory than LIMIT is one without a result."""

from __future__ import annotations

import json
import logging
import resource
import sys

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

LIMIT = 4 << 30  # bytes of address space; sympy takes about one


def same(gold: str, answer: str) -> bool | None:
    """Equal, not equal, or None where the gold expression does not parse as one."""
    readers = [LatexExtractionConfig(), ExprExtractionConfig()]
    parsed = [parse(f"${text}$", readers, parsing_timeout=None) for text in (gold, answer)]
    return verify(parsed[0], parsed[1], timeout_seconds=None) if parsed[0] else None


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
