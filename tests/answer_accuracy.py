"""How often the answer reader agrees with a person on real responses, by type: the table of docs/answers.md.

    python -m tests.answer_accuracy [--disagreements]

The reader *misses* an answer that the person finds. It *misreads* a response where it finds another answer than the
person, or one where the person finds none. The packaged responses are in ../shared/data, or in the folder that
VLPRM_DATA names.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.responses import Key, responses
from vlprm.answers import CANONICAL, extract_answer, is_correct
from vlprm.schema import AnswerType
from vlprm.steps import split_steps

DATA = Path(os.environ.get("VLPRM_DATA", Path(__file__).parents[2] / "shared" / "data"))
FIXTURE = Path(__file__).parent / "fixtures" / "answers.jsonl"


@dataclass(frozen=True)
class Reading:
    key: Key
    answer_type: AnswerType
    expected: str | None
    found: str | None

    @property
    def agrees(self) -> bool:
        if self.found is None or self.expected is None:
            return self.found == self.expected
        canonical = CANONICAL[self.answer_type](self.expected) == self.found
        return canonical or (self.answer_type == "expression" and is_correct(self.found, self.expected, "expression"))


def readings(data: Path = DATA) -> Iterator[Reading]:
    said = responses(data)
    for line in FIXTURE.read_text().splitlines():
        row = json.loads(line)
        key = (row["benchmark"], row["output"], row["item"])
        text, choices = said[key]
        found = extract_answer(split_steps(text), row["answer_type"], choices)
        yield Reading(key, row["answer_type"], row["answer"], found)


def table(rows: list[Reading]) -> list[str]:
    lines = ["| type | responses | agrees with the reader, % | missed | misread |", "|---|---|---|---|---|"]
    for name in (*CANONICAL, "all"):
        of_type = [row for row in rows if name in (row.answer_type, "all")]
        wrong = [row for row in of_type if not row.agrees]
        missed = sum(row.found is None for row in wrong)
        share = 100 * (1 - len(wrong) / len(of_type))
        lines.append(f"| {name} | {len(of_type)} | {share:.1f} | {missed} | {len(wrong) - missed} |")
    return lines


if __name__ == "__main__":
    read = list(readings())
    print("\n".join(table(read)))
    if "--disagreements" in sys.argv:
        for row in read:
            if not row.agrees:
                print(*row.key, row.answer_type, f"reader: {row.expected!r}, found: {row.found!r}")
