"""How many cases are judged as their authors say: the tables of tests/fixtures and the tests of public libraries.

    python -m tests.answer_suites [CLONES] [--disagreements]

CLONES is a folder with clones of any of

    https://github.com/huggingface/Math-Verify
    https://github.com/NVIDIA-NeMo/Skills
    https://github.com/MARIO-Math-Reasoning/math_evaluation

Each pair of a public library is read as two untagged responses of the type expression. A pair for which sympy needs
more than five seconds, which depends on the machine, has no result and counts as not equal.
"""

from __future__ import annotations

import ast
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vlprm.answers import CANONICAL, extract_answer, is_correct
from vlprm.steps import split_steps

FIXTURES = Path(__file__).parent / "fixtures"


class Case(NamedTuple):
    """`agrees`: the product judges the case as its author says."""

    suite: str
    agrees: bool
    shown: str


def read_rows(name: str) -> list[dict[str, Any]]:
    """The rows of a table in tests/fixtures."""
    return [json.loads(line) for line in (FIXTURES / name).read_text().splitlines()]


def pair_agrees(row: dict[str, Any]) -> bool:
    """Whether the answer and the gold answer of a row are found equal or different, as the row says."""
    return is_correct(CANONICAL[row["type"]](row["answer"]), row["gold"], row["type"]) is row["equal"]


def text_agrees(row: dict[str, Any]) -> bool:
    """Whether the text of a row gives the row's answer, or none if the row has none."""
    found = extract_answer(split_steps(row["text"]), row["type"], row["choices"])
    if found is None or row["answer"] is None:
        return found == row["answer"]
    return is_correct(found, row["answer"], row["type"]) is True


def tables() -> Iterator[Case]:
    """The cases of the tables in tests/fixtures."""
    for row in read_rows("answer_pairs.jsonl"):
        yield Case(f"pairs: {row['case']}", pair_agrees(row), str(row))
    for row in read_rows("answer_texts.jsonl"):
        yield Case(f"texts: {row['case']}", text_agrees(row), str(row))


def judged(suite: str, gold: str, said: str, equal: bool) -> Case:
    """A pair of a public library, judged."""
    right, answer = (extract_answer(split_steps(text), "expression") for text in (gold, said))
    found = right is not None and is_correct(answer, right, "expression") is True
    return Case(suite, found == equal, f"{gold!r} {said!r} equal: {equal}")


def _calls(path: Path, name: str) -> Iterator[tuple[ast.FunctionDef, ast.Call]]:
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef):
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == name:
                    yield function, call


def _literal(node: ast.expr) -> Any:
    """The value of a literal or of a division of two; None for other code."""
    if isinstance(node, ast.Tuple):
        return tuple(_literal(item) for item in node.elts)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return _literal(node.left) / _literal(node.right)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return None


def math_verify(clone: Path) -> Iterator[tuple[str, str, bool]]:
    """The parametrised rows of Math-Verify's tests that have a literal gold answer and a literal prediction."""
    for path in sorted((clone / "tests").glob("test_*.py")):
        for _, call in _calls(path, "parametrize"):
            names = ast.literal_eval(call.args[0])
            names = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
            for element in getattr(call.args[1], "elts", []):
                values = _literal(element)
                row = dict(zip(names, values, strict=True)) if isinstance(values, tuple) else {}
                if isinstance(row.get("gold"), str) and isinstance(row.get("pred"), str):
                    yield row["gold"], row["pred"], bool(row.get("expected", row.get("result")))


def nemo_skills(clone: Path) -> Iterator[tuple[str, str, bool]]:
    """The pairs of NeMo-Skills' test of `math_equal`, in both orders."""
    for function, call in _calls(clone / "tests" / "test_math_equal.py", "parametrize"):
        for element in getattr(call.args[1], "elts", []):
            pair = _literal(element)
            if isinstance(pair, tuple) and len(pair) == 2 and None not in pair:
                for gold, said in (pair, pair[::-1]):
                    yield str(gold), str(said), "incorrect" not in function.name


def math_evaluation(clone: Path) -> Iterator[tuple[str, str, bool]]:
    """The pairs of math_evaluation's test of `is_equiv`: the two names, or the list of pairs, set before an
    assertion."""
    path = clone / "math_evaluation" / "tests" / "test_is_equiv.py"
    for function in ast.walk(ast.parse(path.read_text())):
        known: dict[str, Any] = {}
        for line in getattr(function, "body", []) if isinstance(function, ast.FunctionDef) else []:
            if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
                known[line.targets[0].id] = _literal(line.value)
                continue
            for call in ast.walk(line):
                if (name := getattr(getattr(call, "func", None), "attr", "")) in ("assertTrue", "assertFalse"):
                    pairs = (
                        known["test_pairs"] if isinstance(line, ast.For) else [(known["test_in"], known["test_out"])]
                    )
                    yield from ((gold, said, name == "assertTrue") for said, gold in pairs)


SUITES = {"Math-Verify": math_verify, "Skills": nemo_skills, "math_evaluation": math_evaluation}


def main(arguments: list[str]) -> None:
    cases = list(tables())
    for clones in [Path(said) for said in arguments if not said.startswith("--")]:
        for name, pairs in SUITES.items():
            if (clones / name).is_dir():
                cases += [judged(name, *pair) for pair in pairs(clones / name)]
            else:
                print(f"{name}: not in {clones}, not run")
    if "--disagreements" in arguments:
        print(*(f"{case.suite}: {case.shown}" for case in cases if not case.agrees), sep="\n")
    by_suite: dict[str, list[bool]] = defaultdict(list)
    for case in cases:
        by_suite[case.suite].append(case.agrees)
    for suite, agreed in by_suite.items():
        print(f"{suite}: {sum(agreed)} of {len(agreed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
