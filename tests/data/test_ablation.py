"""Ablated steps: words or mathematics are removed, a right derivation stays right, and nothing is lost that is kept."""

from __future__ import annotations

import pytest

from data_synth.judges.arithmetic import false_equality
from tests.conftest import executed, solved
from vlprm.data.ablation import NOTHING, ablated, apart
from vlprm.schema import Problem
from vlprm.steps import parse_step


@pytest.mark.parametrize(
    ("text", "removed", "only"),
    [
        ("[perception] row 1: red none circle", "[perception] 1: red none circle", "[perception] row"),
        ("[reasoning] red by row: 1 + 2 = 3", "[reasoning] red : 1 + 2 = 3", "[reasoning] by row"),
        ("[reasoning] the largest is 7 at B", "[reasoning] 7 B", "[reasoning] the largest is at"),
        ("[perception] A is 3 and AB is 1,024.5 cm", "[perception] A 3 AB 1,024.5", "[perception] is and is cm"),
        ("[answer] yes", "[answer] yes", "[answer]"),
        ("Hence a + b is \\frac{1}{2}, a fraction", "a + b \\frac{1}{2},", "Hence is a fraction"),
        ("So it is equal", NOTHING, "So it is equal"),
        ("Let x = 4.\nThen 2x = 8.", "x = 4.\n2x = 8.", "Let\nThen"),
    ],
)
def test_a_step_is_cut_to_its_mathematics_or_to_its_words(text: str, removed: str, only: str) -> None:
    step = parse_step(text)
    assert [ablated([step], words)[0].text for words in ("kept", "removed", "only")] == [text, removed, only]
    assert ablated([step], "removed")[0].kind == ablated([step], "only")[0].kind == step.kind


def test_a_right_derivation_stays_right_and_a_wrong_one_wrong(problems: list[Problem]) -> None:
    equalities = 0
    for problem in problems:
        steps = [executed(step) for step in solved(problem)]
        shown = ablated(steps, "removed")
        for step, was in zip(shown, steps, strict=True):
            assert (step.kind, step.region) == (was.kind, was.region)
            assert step.text == was.text if was.kind == "zoom" else step.text.startswith(f"[{was.kind}]")
            if "=" in was.text:
                equalities += 1
                assert was.text.partition("=")[2] in step.text
                assert false_equality(step.text) is false_equality(was.text) is None
                spoilt = parse_step(was.text + "0")
                assert false_equality(ablated([spoilt], "removed")[0].text) == false_equality(spoilt.text) is not None
        assert shown[-1] == steps[-1], "an answer is mathematics or a name"
        assert not any(
            letter.isdigit() for step in ablated(steps, "only") if step.kind != "zoom" for letter in step.text
        )
    assert equalities > 3


def test_steps_apart_are_the_same_steps(problems: list[Problem]) -> None:
    steps = tuple(solved(problems[0]))
    assert apart(steps, "kept") == [steps]
    assert [step for (step,) in apart(steps, "removed")] == list(steps)
