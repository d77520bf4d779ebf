"""How many of the literal pairs in Math-Verify's own tests are judged as those tests say.

    git clone https://github.com/huggingface/Math-Verify && python -m tests.math_verify_pairs Math-Verify/tests

Each test's gold and prediction are read as untagged responses of the type expression. A pair for which sympy needs more
than five seconds, which depends on the machine, has no result and counts as not equal.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from vlprm.answers import extract_answer, is_correct
from vlprm.steps import split_steps


def pairs(folder: Path) -> Iterator[tuple[str, str, bool]]:
    """Gold, prediction, and whether they are equal, for the parametrised rows that are literals."""
    for path in sorted(folder.glob("test_*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or getattr(call.func, "attr", "") != "parametrize":
                continue
            names = ast.literal_eval(call.args[0])
            names = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
            for element in getattr(call.args[1], "elts", []):
                try:
                    row = dict(zip(names, ast.literal_eval(element), strict=True))
                except (ValueError, TypeError):
                    continue  # not a literal
                if isinstance(row.get("gold"), str) and isinstance(row.get("pred"), str):
                    yield row["gold"], row["pred"], bool(row.get("expected", row.get("result")))


def agrees(gold: str, said: str, equal: bool) -> bool:
    right, answer = (extract_answer(split_steps(text), "expression") for text in (gold, said))
    return (right is not None and is_correct(answer, right, "expression") is True) == equal


if __name__ == "__main__":
    found = [(pair, agrees(*pair)) for pair in pairs(Path(sys.argv[1]))]
    for pair, agreed in found:
        if not agreed:
            print(*(repr(part)[:200] for part in pair))
    print(f"{sum(agreed for _, agreed in found)} of {len(found)}")
