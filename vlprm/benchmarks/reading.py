"""Rules that several benchmarks share: a stored verdict, our reader of answers, and options written inside a question.

The official scorers of MathVerse, DynaMath, LogicVista and HR-Bench ask a chat model to extract or compare an answer.
If an output's record stores the verdict of such a call, `judged` takes it. Otherwise the rules of vlprm/answers/ read
the answer, and the number must not be compared with numbers of a judge.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from vlprm.answers import CANONICAL, extract_answer, is_correct
from vlprm.benchmarks.benchmark import LETTERS, Item, Output, Reading
from vlprm.errors import UserError
from vlprm.schema import AnswerType
from vlprm.steps import split_steps


def read(item: Item, output: Output) -> Reading:
    """The answer that our reader finds, compared with the gold answer. A comparison that takes too long gives
    no answer."""
    answer = extract_answer(split_steps(output.text), item.answer_type, item.options) if output.text.strip() else None
    right = None if answer is None else _same(answer, item.answer, item.answer_type)
    return Reading(None if right is None else answer, right is True)


def _same(answer: str, gold: str, answer_type: AnswerType) -> bool | None:
    if CANONICAL[answer_type](gold) is None:  # a gold answer in a form that our types do not have
        return answer.casefold().split() == gold.casefold().split()
    return is_correct(answer, gold, answer_type)


def judged(field: str, read: Callable[[Item, Output], Reading] = read) -> Callable[[Item, Output], Reading]:
    """The rule that takes the verdict 0 or 1 that a record stores as `field`; without one it reads the answer. The
    rule raises UserError for another value."""

    def rule(item: Item, output: Output) -> Reading:
        if field not in output.saved:
            return read(item, output)
        stored = output.saved[field]
        if stored not in (0, 1, "0", "1"):
            raise UserError(
                f"the {field} of output {output.id} is {stored!r}, not 0 or 1; judge it again, or remove it"
            )
        return Reading(read(item, output).answer or output.text.strip() or None, int(stored) == 1)

    return rule


def parted(text: str, mark: str) -> tuple[str, tuple[str, ...]]:
    """The question and the options of a text that lists them after their letters. `mark` is a regular expression of a
    letter with its signs, whose group is the letter. A text without options A, B, ... in order stays whole."""
    question, *rest = re.split(mark, text)
    letters, options = rest[::2], tuple(option.strip(" ;\n") for option in rest[1::2])
    if len(letters) < 2 or "".join(letters) != LETTERS[: len(letters)] or not all(options):
        return text.strip(), ()
    return question.strip(), options
