"""Checkers: they say wrong only of a false statement, and are silent about what they cannot tell."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from data_synth.judges.arithmetic import false_equality
from data_synth.judges.checks import CHECKS
from vlprm.schema import Problem, Step
from vlprm.steps import parse_step
from vlprm.tasks import TASKS


@pytest.mark.parametrize(
    "text",
    [
        "3 + 4 = 8",
        "[reasoning] red by row: 1 + 2 = 4",
        "So 12 - 5 = 6.",
        r"we get $2 \times 8 = 15$",
        r"\(\frac{1}{2} + \frac{1}{4} = \frac{1}{4}\)",
        "2 x 8 = 18",
        "(3 + 4) * 2 = 11",
        "1,200 + 34 = 1,334",
        "2^3 + 1 = 7",
        "10 / 4 = 2.6",
        "180° - 60° = 110°",
        "0.1 + 0.2 = 0.4",
        "-3 + 5 = 1",
        "3 + 4 = 7, and 7 + 2 = 10",
        "the total is 3 + 4 = 8",
        "row 2: 8 = 3 + 4",
    ],
)
def test_a_false_equality_is_found(text: str) -> None:
    assert false_equality(text)


@pytest.mark.parametrize(
    "text",
    [
        "3 + 4 = 7",
        "0.1 + 0.2 = 0.3",
        "10 / 3 = 3.33",  # rounded
        "10 / 3 = 3.3333",
        "7 / 2 = 3",  # whole units of a quotient
        "10 / 3 ≈ 3.4",
        "about 3 + 4 = 8",
        "3 + 4 = 7 + 2 = 9",  # a running sum
        "x + 3 = 4",
        "2y + 3 = 4",
        "y = 3 + 4 = 7",
        "A - 3 = 4",
        "3 + 4 = 8x",
        "3 + 4 = 8 * y",
        "f(3) + 4 = 9",
        "if 2 + 2 = 5, then",
        "it is not 3 + 4 = 8",
        "2 + 2 = 5 is wrong",
        "11 + 3 = 2 o'clock",
        "50 + 60 = 1.1 hundred",
        "10% + 5 = 15",
        "11 + 1 = 100 in binary",
        "1 1/2 + 1 = 2",  # a mixed number
        "3 4 + 1 = 9",
        "1 / 0 = 3",
        "9^9999999 + 1 = 3",
        "a1 + 2 = 7",
        "Angle 1 = 180 - 90 = 90",  # a name with a number
        "The total of row 2 = 3 + 4 = 7",
        "Area of triangle 1 = 3 * 4 / 2 = 6",
        "angles 1 + 2 = 180",
        "angles 1 and 2 = 180 - 60",
        "2,5 + 1 = 3,5",  # decimal commas
        "1 + 1,5 = 2,5",
        "1:30 + 0:45 = 2",
        "__import__('os').system('touch /tmp/x') + 1 = 2",
        "((((((((1 + 1 = 3",
        "",
    ],
)
def test_what_is_not_a_false_statement_of_numbers_is_passed_over(text: str) -> None:
    assert false_equality(text) is None


def slipped(problem: Problem, rng: random.Random) -> list[Step]:
    def write(kind, concept, truth, near):  # type: ignore[no-untyped-def]
        return rng.choice(near) if near and rng.random() < 0.25 else truth

    return [parse_step(text) for text in TASKS[problem.task].solve(problem.meta["scene"], write)]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("check", CHECKS)
def test_before_the_first_error_a_check_is_never_mistaken(task: str, check: str) -> None:
    """Nor with a step left out: what does not follow from the stated premises may still be true."""
    spoke = alarms = 0
    for index in range(150):
        problem = TASKS[task].problem("validation", index % 50, drawn=False)
        rng = random.Random(f"{task} {index}")
        steps = slipped(problem, rng)
        if index % 3 == 0:
            del steps[rng.randrange(len(steps))]
        said = CHECKS[check](problem, steps, TASKS)  # type: ignore[index]
        for truth, verdict in zip(TASKS[task].verdicts(problem, steps), said, strict=True):
            spoke += verdict is not None
            alarms += verdict is not None and not verdict.correct
            if verdict and truth:
                assert verdict.correct == truth.correct
            if truth is None or not truth.correct:
                break
    if check == "deduction":
        assert spoke > alarms > 0 or task == "fine_print"  # its zooms are not executed here
    else:
        assert spoke == alarms  # silence is not agreement


def test_nothing_of_a_text_is_executed() -> None:
    for name in ("arithmetic", "checks"):
        source = (Path(__file__).parents[2] / "data_synth/judges" / f"{name}.py").read_text()
        assert "eval(" not in source
        assert "exec(" not in source
