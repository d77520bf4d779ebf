r"""Group equal answers for votes: `0.5` and `\frac{1}{2}` are one answer."""

from __future__ import annotations

from collections.abc import Sequence

from vlprm.answers.canonical import as_expression
from vlprm.answers.equivalence import same_expression
from vlprm.answers.options import Options
from vlprm.schema import AnswerType

MAX_COMPARED = 64  # pairs per pool that Math-Verify compares; further pairs are compared as text
MAX_LATE = 2  # pairs that may time out


def merged(answers: Sequence[str | None], answer_type: AnswerType, choices: Sequence[str] = ()) -> list[str | None]:
    """Replace each answer by the first answer in the pool that equals it; None stays None. If the options are given, a
    letter and its option's text are the same answer."""
    groups: list[list[str]] = []
    same = _Same(answer_type, choices)
    for answer in dict.fromkeys(answer for answer in answers if answer is not None):
        # `5` equals `5 cm` and `5 m`, which differ.
        group = next((group for group in groups if all(same(answer, member) for member in group)), None)
        if group is None:
            groups.append([answer])
        else:
            group.append(answer)
    firsts = {answer: group[0] for group in groups for answer in group}
    return [None if answer is None else firsts[answer] for answer in answers]


class _Same:
    """Whether two answers are equal; counts its questions to Math-Verify."""

    def __init__(self, answer_type: AnswerType, choices: Sequence[str]) -> None:
        self.compares = answer_type == "expression" and not choices
        self.options = Options(choices, "choice") if choices else None
        self.compared = self.late = 0

    def __call__(self, answer: str, first: str) -> bool:
        if self.options is not None:
            letter = self.options.whole(answer)
            return letter is not None and letter == self.options.whole(first)
        if not self.compares or self.compared >= MAX_COMPARED or self.late >= MAX_LATE:
            return False
        self.compared += 1
        found = same_expression(as_expression(answer) or answer, as_expression(first) or first)
        self.late += found is None
        return found is True
