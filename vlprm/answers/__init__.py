"""Final answers: what a solution answers, and whether that is the gold answer. The one answer checker of the project.

A text that does not conclude has no answer (None): it is a *no result*, counted and shown, and never a wrong answer.
docs/answers.md has the rules by answer type, and how often they read real responses as a reader does.
"""

from __future__ import annotations

from collections.abc import Sequence

from vlprm.answers.canonical import CANONICAL
from vlprm.answers.conclusion import FORMS, Form, answer_text, concluding, form_of
from vlprm.answers.equivalence import same_expression, same_float
from vlprm.answers.groups import merged
from vlprm.answers.response import read_conclusion
from vlprm.errors import UserError
from vlprm.schema import AnswerType, Problem, Step

__all__ = [
    "CANONICAL",
    "FORMS",
    "Form",
    "answer_text",
    "choices_of",
    "extract_answer",
    "form_of",
    "is_correct",
    "merged",
]


def choices_of(problem: Problem) -> tuple[str, ...]:
    """The texts of a problem's options, in the order of their letters; empty where it lists none."""
    return tuple(problem.meta.get("choices") or ())


def extract_answer(steps: Sequence[Step], answer_type: AnswerType, choices: Sequence[str] = ()) -> str | None:
    """The canonical answer of a solution, or None where it does not conclude.

    A solution with tags answers in its last answer step; one without is prose, and what was said after the last zoom is
    read for what it concludes. Both are read by the same reader. `choices` are the texts of the problem's options;
    where they are known, an answer is one of them (its letter, for the type `choice`).
    """
    return read_conclusion(concluding(steps), answer_type, choices) if steps else None


def is_correct(answer: str | None, gold: str, answer_type: AnswerType) -> bool | None:
    """True or False for an extracted answer, None for a *no result*. UserError if the gold answer does not parse.

    A float is right where it is the gold number at the gold number's decimals; an expression where Math-Verify, if the
    strings differ, finds the same value, and units and names agree. All other types compare canonical forms.
    """
    expected = CANONICAL[answer_type](gold)
    if expected is None or (answer_type == "integer" and "," in expected):
        raise UserError(f"gold answer {gold!r} is not of type {answer_type}; correct the problem")
    if answer is None or answer == expected:
        return None if answer is None else True
    if answer_type == "float":
        return same_float(answer, expected, gold)
    return same_expression(answer, expected) if answer_type == "expression" else False
