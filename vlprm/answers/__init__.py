"""Read the final answer of a solution and compare it with the gold answer. The only answer checker of the project.

A text without a conclusion has no answer (None): it counts as *no result* and is reported, never as a wrong answer.
docs/answers.md lists the rules per answer type and how often they agree with a human reader on real responses.
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
    """The texts of a problem's options, in the order of their letters; empty if the problem has no options."""
    return tuple(problem.meta.get("choices") or ())


def extract_answer(steps: Sequence[Step], answer_type: AnswerType, choices: Sequence[str] = ()) -> str | None:
    """The canonical answer of a solution, or None if the solution does not conclude.

    A tagged solution answers in its last answer step; an untagged one is read as prose, from after its last zoom.
    `choices` are the texts of the problem's options; if given, the answer is one of them (its letter for the type
    `choice`).
    """
    return read_conclusion(concluding(steps), answer_type, choices) if steps else None


def is_correct(answer: str | None, gold: str, answer_type: AnswerType) -> bool | None:
    """True or False for an extracted answer, None for *no result*. UserError if the gold answer does not parse.

    A float is right if it equals the gold number at the gold number's decimals. An expression is right if the strings
    are equal, or if Math-Verify finds the same value and units and names agree. Other types compare canonical forms.
    """
    expected = CANONICAL[answer_type](gold)
    if expected is None or (answer_type == "integer" and "," in expected):
        raise UserError(f"the gold answer {gold!r} is not of type {answer_type}; correct the problem")
    if answer is None or answer == expected:
        return None if answer is None else True
    if answer_type == "float":
        return same_float(answer, expected, gold)
    return same_expression(answer, expected) if answer_type == "expression" else False
