"""Answers: one form for equal answers, prose that concludes or does not, and expressions that take too long."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from vlprm.answers import CANONICAL, choices_of, equivalence, extract_answer, is_correct
from vlprm.schema import AnswerType, Problem, Region, Step
from vlprm.steps import split_steps

COLOURS = ("red", "dark green", "green", "blue")


def read(text: str, answer_type: AnswerType, choices: tuple[str, ...] = ()) -> str | None:
    return extract_answer(split_steps(text), answer_type, choices)


@pytest.mark.parametrize(
    ("answer_type", "texts", "canonical"),
    [
        ("float", ["0.5", ".50", "1/2", r"$\frac{1}{2}$", r"\dfrac12", "5e-1", r"5 \times 10^{-1}", "0.5%"], "0.5"),
        ("float", ["1000", "$1,000.00", "1e3", "1 x 10^3"], "1000"),
        ("float", ["-2.30", "\u22122.3"], "-2.3"),
        ("text", ["Dark  Red.", "**dark red**", r"$\text{Dark Red}$"], "dark red"),
        ("text", ["$1,000", "1000"], "1000"),
        ("list", ["[2007, 2008]", "(2007,2008)", "2007, 2008", "['2007', '2008.0']"], "[2007, 2008]"),
        ("expression", ["0.5", r"\frac12", "1/2", r"\boxed{\tfrac{1}{2}}"], "1/2"),
        ("expression", ["x=0.5", r"x = \frac{2}{4}"], "x=1/2"),
        ("expression", ["2 1/2", r"2\frac{1}{2}", "10/4"], "5/2"),
        ("expression", ["2.5 cm^2", r"2.5 \mathrm{~cm}^{2}", r"\frac{5}{2}\text{ cm}^2"], "5/2 cm^2"),
        ("expression", [r"\left( 2, \sqrt3 \right)", r"(2,\sqrt{3})"], r"(2,\sqrt{3})"),
    ],
)
def test_equal_answers_are_equal_strings(answer_type: AnswerType, texts: list[str], canonical: str) -> None:
    assert {text: CANONICAL[answer_type](text) for text in texts} == dict.fromkeys(texts, canonical)


@pytest.mark.parametrize(
    ("answer_type", "text"),
    [
        ("float", "blue"),
        ("float", "1/0"),
        ("float", "1e999999999"),
        ("list", "5"),
        ("expression", r"\frac{1}{"),
        ("expression", "2 +"),
        ("expression", "x" * 500),
    ],
)
def test_what_is_no_such_answer_has_no_form(answer_type: AnswerType, text: str) -> None:
    assert CANONICAL[answer_type](text) is None


@pytest.mark.parametrize(
    ("text", "answer_type", "expected"),
    [
        ("There are 3 + 4 cups.\n\nThe answer is 7.", "integer", "7"),
        ("Final answer: **1,024**", "integer", "1024"),
        (r"so we get \(\boxed{12}\).", "integer", "12"),
        ("<think>The answer is 5?</think><answer>6</answer>", "integer", "6"),
        ("<think>The answer is 5.</think>Let me look again.", "integer", None),
        ("The answer is 5. Wait: the answer is 6.", "integer", "6"),
        ("After that, there are three objects left.", "integer", "3"),
        ("The sum is 3 + 4 = 7 cm.", "integer", "7"),
        ("The answer is 7.5.", "integer", None),  # another kind of number, and no weaker conclusion replaces it
        ("At least 60 push-ups were done by 3 people.", "integer", "3"),
        ("There are 4 cars and 2 buses.", "integer", None),
        ("Let me look at the picture again.", "integer", None),
        ("I'm sorry, I cannot see the 3 images.", "integer", None),
        ("The answer is 5.\n\nQuestion: And the second?\nAnswer: 6.", "integer", "5"),
        ("Rounded, the answer is $2.70", "float", "2.7"),
        ("The line peaked between the years 2010 and 2012.", "list", "[2010, 2012]"),
        ("The answer is a list:\n```python\n[1, 2]\n```", "list", "[1, 2]"),
        (r"Thus the area is $\frac{11\pi}{6}$ square feet.", "expression", r"\frac{11\pi}{6}"),
        ("The area is half of it, which is 1/2 the area of ABCD.", "expression", None),
        ("The answer is the mitral valve.", "text", "mitral valve"),
        ("It depends on what the picture shows, and on the light.", "word", None),
        ("Answer: (B)", "choice", "B"),
        ("(d)", "choice", "D"),
        ("A dog is in the picture.", "choice", None),
    ],
)
def test_prose_is_read_for_what_it_concludes(text: str, answer_type: AnswerType, expected: str | None) -> None:
    assert read(text, answer_type) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The correct answer is **(C)**, since grass is green.", "C"),
        ("The cup is dark green.", "B"),
        ("The cup looks dark green.", "B"),  # and not green, which is a part of it
        ("The cup is red.\n\nAnswer: 7", None),  # it ends with another kind of answer
        ("It is not red. So the cup is blue.", "D"),
        ("Options:\n(A) red\n(B) dark green\n(C) green\n(D) blue\n\nTherefore, it is:\n(D) blue", "D"),
        ("(A) red\n(B) dark green\n(C) green\n(D) blue", None),
        ("It may be red or blue.", None),
        ("The answer is yellow.", None),  # none of the options
        ("The answer is (F).", None),
        ("None of the options fits: the cup is not listed. Perhaps red.", None),
    ],
)
def test_an_option_is_read_by_letter_or_by_text(text: str, expected: str | None) -> None:
    assert read(text, "choice", COLOURS) == expected
    as_text = None if expected is None else COLOURS["ABCD".index(expected)]
    assert read(text, "text", COLOURS) == as_text


def test_options_of_one_letter_yes_and_no_and_units() -> None:
    assert read("The answer is A polynomial.", "choice", ("A", "B")) is None
    assert read("No, there are none.", "choice", ("Yes", "No")) == "B"
    assert read("There are no red cups.", "choice", ("Yes", "No")) is None
    assert read("The function is not convex.", "word", ("yes", "no")) == "no"
    assert read(r"The answer is \boxed{4}", "choice", (r"$3 \mathrm{~km}$", r"$4 \mathrm{~km}$")) == "B"
    assert read("[answer] (B) 4 km", "choice", ("3 km", "4 km")) == "B"


def test_tags_say_where_the_answer_stands() -> None:
    assert read("[answer] 6\n\n[answer] The answer is 7", "integer") == "7"
    assert read("[reasoning] x\n\nThe answer is 7", "integer") == "7"  # announced, though without its tag
    assert read("[reasoning] There are 7", "integer") is None
    assert read("[answer] 6\n\nWait, that is wrong: there are 3 of them and 4.", "integer") is None
    assert read("[answer] 6\n\nWait, that is wrong. The answer is 7.", "integer") == "7"
    zoom = Step("zoom", '[zoom] {"bbox_2d": [0, 0, 5, 5]}', Region(0, 0, 5, 5))
    before, after = Step("other", "The answer is 6."), Step("other", "The answer is 7.")
    assert extract_answer([before, zoom, after], "integer") == "7"
    assert extract_answer([before, zoom], "integer") is None  # said before the crop was seen
    problem = Problem("p", "t", "?", (), "A", "choice", {"choices": ["x y", "z"]})
    assert choices_of(problem) == ("x y", "z")


@pytest.mark.parametrize(
    ("answer_type", "answer", "gold", "right"),
    [
        ("float", "0.58", "0.6", True),
        ("float", "0.6", "0.58", False),
        ("float", "3.14", "3.1", True),
        ("float", "0.167", "1/6", False),
        ("float", "0.1667", "1/6", True),
        ("expression", r"10\sqrt{2}", r"\sqrt{200}", True),
        ("expression", "2x+1", "1+2x", True),
        ("expression", r"7\pi", r"8\pi", False),
        ("expression", "tiger", "Tiger", True),
        ("expression", "listen", "silent", False),  # not a product of letters
        ("text", "paris", "Paris.", True),
        ("list", "[1, 2]", "[1, 2.0]", True),
    ],
)
def test_right_is_the_same_value(answer_type: AnswerType, answer: str, gold: str, right: bool) -> None:
    canonical = CANONICAL[answer_type](answer)
    assert canonical is not None
    assert is_correct(canonical, gold, answer_type) is right


def test_an_expression_that_takes_too_long_has_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a thread, where Math-Verify alone would raise. The next pair is compared as usual."""
    assert is_correct("2x", "x+x", "expression") is True  # the child has started
    monkeypatch.setattr(equivalence, "LIMIT", 0.5)
    found: list[bool | None] = []
    thread = threading.Thread(target=lambda: found.append(is_correct("10^{10^{10}}", "x+1", "expression")))
    thread.start()
    thread.join(60)  # the comparison itself has no end
    assert found == [None]
    monkeypatch.undo()
    assert is_correct("2x", "x+x", "expression") is True


def test_a_comparison_that_waits_for_a_processor_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_correct("2x", "x+x", "expression") is True  # the child has started
    child = equivalence._child
    assert child is not None
    monkeypatch.setattr(equivalence, "LIMIT", 1.0)
    os.kill(child.pid, signal.SIGSTOP)
    threading.Timer(2.0, os.kill, (child.pid, signal.SIGCONT)).start()
    assert is_correct("3x", "x+2x", "expression") is True


@pytest.mark.parametrize("answer_type", CANONICAL)
@pytest.mark.parametrize(
    "text",
    ["{" * 100_000, r"\boxed{" * 20_000, "the answer is " * 8_000, " " * 100_000, "9" * 100_000, "1/" * 50_000,
     "[" * 100_000, "**" * 50_000, "$" * 100_000, "= 1 + " * 15_000, "(A) " * 25_000, "no, not " * 12_000],
    ids=lambda text: text[:8],
)  # fmt: skip
def test_pathological_text_is_read_in_no_time(text: str, answer_type: AnswerType) -> None:
    started = time.process_time()  # CPU time: other processes do not count
    read(text, answer_type, COLOURS if answer_type == "choice" else ())
    assert time.process_time() - started < 5
