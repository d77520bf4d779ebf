"""Tables of cases: pairs that are equal or not, and texts with the answer that they give."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.answer_suites import pair_agrees, read_rows, text_agrees
from vlprm.answers import CANONICAL, FORMS, answer_text, extract_answer, form_of, groups, merged
from vlprm.schema import AnswerType
from vlprm.steps import join_steps, split_steps

PAIRS, TEXTS = read_rows("answer_pairs.jsonl"), read_rows("answer_texts.jsonl")


def cases(rows: list[dict[str, Any]]) -> list[str]:
    return sorted({row["case"] for row in rows})


@pytest.mark.parametrize("case", cases(PAIRS))
def test_pairs_are_equal_or_not(case: str) -> None:
    assert [row for row in PAIRS if row["case"] == case and not pair_agrees(row)] == []


@pytest.mark.parametrize("case", cases(TEXTS))
def test_texts_give_their_answers(case: str) -> None:
    assert [row for row in TEXTS if row["case"] == case and not text_agrees(row)] == []


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("[reasoning] x\n\n[answer] 42", "tagged"),
        ("[answer] dark green", "tagged"),
        (r"[answer] \boxed{42}", "tagged_prose"),
        ("[answer] The answer is 42.", "tagged_prose"),
        ("**[Answer]:** 42", "other_tag"),
        ("[answer]\n42", "other_tag"),
        (r"So it is $\boxed{42}$.", "boxed"),
        ("The answer is 42.", "announced"),
        ("There are 42.", "prose"),
        ("[reasoning] There are 42.", "none"),
    ],
)
def test_the_form_of_an_answer_is_named(text: str, form: str) -> None:
    assert form_of(split_steps(text)) == form
    assert form in FORMS


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("[perception] a\n[reasoning] b\n[answer] 5", ["perception", "reasoning", "answer"]),
        ("[perception] a\r\n\r\n[reasoning] b\r\n\r\n[answer] 5", ["perception", "reasoning", "answer"]),
        ("a\r\n\r\nb", ["other", "other"]),
        ("1. **[Perception]** a\n2. **[Reasoning]** b\n3. **[Answer]** 5", ["perception", "reasoning", "answer"]),
        ("[perception]\na\nb\n\n[answer]\n\n5", ["perception", "answer"]),
        ("[perception]\n\n[answer] 5", ["perception", "answer"]),
        ("I see it.\n[answer] 5\n", ["other", "answer"]),
        ("A [answer] in a sentence.\nAnother line.", ["other"]),
        ('- [zoom] {"bbox_2d": [0, 0, 5, 5]}', ["zoom"]),
    ],
)
def test_tags_are_read_as_policies_write_them(text: str, kinds: list[str]) -> None:
    steps = split_steps(text)
    assert [step.kind for step in steps] == kinds
    assert join_steps(steps) == text
    assert split_steps(join_steps(steps)) == steps


def test_rules_for_prose_read_the_answer_step_alone() -> None:
    assert answer_text(split_steps("[perception] 3\n[answer]\n5\n")) == "5"
    assert answer_text(split_steps("**[Answer]:** (B)\n\nI hope this helps!")) == "(B)"
    doubted = "[answer] 3\n\nBut wait."
    assert answer_text(split_steps(doubted)) == doubted
    assert answer_text(split_steps("There are 3 of them.")) == "There are 3 of them."


def test_votes_count_equal_answers_together() -> None:
    pool = [r"2\sqrt{3}", r"\sqrt{12}", None, "7", r"2\sqrt3", "7"]
    assert merged(pool, "expression") == [r"2\sqrt{3}", r"2\sqrt{3}", None, "7", r"2\sqrt{3}", "7"]
    assert merged(["(x+1)^2", "x^2+2x+1", "x+1", "(1+x)^2"], "expression") == ["(x+1)^2", "(x+1)^2", "x+1", "(x+1)^2"]
    assert merged(["B", "12", "C", "14"], "text", ("10", "12", "14")) == ["B", "B", "C", "C"]
    assert merged(["x=1", "1", "y=1"], "expression") == ["x=1", "x=1", "y=1"]
    assert merged(["5", "5 cm", "5 m"], "expression") == ["5", "5", "5 m"]  # two lengths are not one
    assert merged(["0.5", "0.50"], "word") == ["0.5", "0.50"]


def test_a_pool_costs_a_bounded_number_of_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(groups, "same_expression", lambda a, b: bool(asked.append(a)))
    merged([f"x+{n}" for n in range(100)], "expression")
    assert len(asked) == groups.MAX_COMPARED


DEGENERATE = (
    "\n", "is ", "x = ", "a\n", "5 cm ", "[answer]\n", "<answer>", "and 5 ", r"\boxed{1} and ", "so it is ",
    "½", "25 000 ", r"\begin{matrix}", "twenty ", r"\sqrt(", "答案是", r"x=\boxed{", "5 million ", "</answer>",
)  # fmt: skip


@pytest.mark.parametrize("answer_type", CANONICAL)
@pytest.mark.parametrize("part", DEGENERATE)
def test_reading_is_linear_in_the_text(part: str, answer_type: AnswerType) -> None:
    """A degenerate text takes at most a few times as long as ordinary sentences of the same length."""
    text = part * (20_000 // len(part)) + "5"
    started = time.process_time()
    extract_answer(split_steps(text), answer_type, ("red", "blue") if answer_type == "choice" else ())
    assert time.process_time() - started < 1.0
