"""Answers of real responses. A person read each one first: tests/fixtures/answers.jsonl holds the answers found."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.answer_accuracy import DATA, FIXTURE, Reading, readings, table
from vlprm.answers import CANONICAL

pytestmark = pytest.mark.skipif(
    not DATA.is_dir() and not os.environ.get("CI"),
    reason=f"{DATA} is not there; set VLPRM_DATA to the folder of packaged responses",
)


@pytest.fixture(scope="module")
def rows() -> list[Reading]:
    return list(readings())


def test_answers_are_read_as_a_reader_reads_them(rows: list[Reading]) -> None:
    print("\n".join(table(rows)))
    assert "\n".join(table(rows)) in (FIXTURE.parents[2] / "docs" / "answers.md").read_text()
    assert len(rows) == len(FIXTURE.read_text().splitlines()) >= 300
    agreed = sum(row.agrees for row in rows) / len(rows)
    assert agreed >= 0.97, [row for row in rows if not row.agrees]


@pytest.mark.parametrize("answer_type", CANONICAL)
def test_no_type_is_read_badly(rows: list[Reading], answer_type: str) -> None:
    of_type = [row for row in rows if row.answer_type == answer_type]
    assert sum(row.agrees for row in of_type) >= 0.9 * len(of_type)


def test_what_is_not_understood_is_no_answer(rows: list[Reading]) -> None:
    """A missed answer costs a sample; a misread one puts a wrong label on it."""
    outcomes = Counter((row.expected is None, row.found is None) for row in rows if not row.agrees)
    misread = sum(count for (_, missed), count in outcomes.items() if not missed)
    assert misread <= 0.005 * len(rows)
    assert sum(row.expected is None for row in rows) >= 50  # many of them say nothing
