"""Every prompt template, with an id and a version. A checkpoint names the template it was trained with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from vlprm.errors import ProblemError, UserError
from vlprm.schema import Problem

TEMPLATES: dict[str, str] = {
    # For the built-in models, which were trained on the step format.
    "plain@1": "{question}",
    # For any instruction-tuned policy.
    "tagged_steps@1": (
        "{question}\n\nSolve this step by step. Write each step as one paragraph that opens with its tag: "
        "[perception] for what the image shows, [reasoning] for what you derive, "
        '[zoom] {{"bbox_2d": [x0, y0, x1, y1], "label": "..."}} to see a region enlarged, '
        "and [answer] with the final answer alone as the last step. Leave a blank line between steps."
    ),
}


def user_text(template_id: str, problem: Problem) -> str:
    """The text of the user's turn. UserError for an unknown template."""
    if template_id not in TEMPLATES:
        raise UserError(f"unknown prompt template {template_id!r}; known: {', '.join(TEMPLATES)}")
    return TEMPLATES[template_id].format(question=problem.question)


def option_list(options: Sequence[str], mark: str = "({}) {}") -> str:
    """Options with their letters, one per line. UserError if there are more options than letters."""
    if len(options) > len(ascii_uppercase):
        raise UserError(f"{len(options)} options are more than the 26 letters; correct the row")
    return "\n".join(mark.format(letter, option) for letter, option in zip(ascii_uppercase, options, strict=False))


def with_options(question: str, options: Sequence[str]) -> str:
    """The question with its options, which policy, judge and reward model all read. A question that already lists each
    option after its letter stays as it is."""
    lettered = zip(ascii_uppercase, options, strict=False)
    listed = all(re.search(rf"\b{letter} ?[.):\]]\s*{re.escape(option)}", question) for letter, option in lettered)
    return question if listed else f"{question}\n{option_list(options)}"


# The question after each step to a reward model that answers with a verdict token.
VERDICT_TEMPLATES: dict[str, str] = {"verdict@1": "Is the last step correct? Answer {right} or {wrong}."}


def verdict_text(template_id: str, verdicts: tuple[str, str]) -> str:
    """The question for a verdict. UserError for an unknown template."""
    if template_id not in VERDICT_TEMPLATES:
        raise UserError(f"unknown verdict template {template_id!r}; known: {', '.join(VERDICT_TEMPLATES)}")
    return VERDICT_TEMPLATES[template_id].format(right=verdicts[0], wrong=verdicts[1])


CRITIQUE_TEMPLATES: dict[str, str] = {
    # The built-in backbone was trained to write the critique right after the step, without a user's turn.
    "plain_critique@2": "",
    "critique@2": (
        "Check the last step of the solution; those before it are right. Write `right`, or `wrong: ` and the step as it"
        " should be. Then write a line of this form:\nintent: what the step does; image: agrees or differs; logic:"
        " holds or fails"
    ),
}


def critique_question(prompt_template: str) -> str:
    """The question after each step to a model with this prompt template."""
    return CRITIQUE_TEMPLATES["plain_critique@2" if prompt_template == "plain@1" else "critique@2"]


_JUDGE = """You check a solution to a question about {images}, step by step. A step is wrong if what it says is not \
so: it misreads an image (perception), it does not follow (reasoning), or it asks for a region that does not show what \
is needed (action). A step that follows from an earlier wrong one is wrong too, with the same kind of error.{crops}

Question: {question}
{reference}
Solution:
{steps}

Answer with JSON alone: {{"steps": [{{"step": 1, "reason": "...", "verdict": "correct" or "wrong", "error": "none" \
or "perception" or "reasoning" or "action"}}, ... one for each of the {count} steps in order], "correction": "what the \
first wrong step should have been, or an empty text"}}"""

# The ground truth that the judge gets. SPARE aligns a solution with a reference solution; the answer alone helps less.
# Most published data was made without either.
JUDGE_TEMPLATES: dict[str, str] = {
    "judge@1": "",
    "judge_answer@1": "\nThe right answer is: {answer}\n",
    "judge_reference@1": "\nThe right answer is: {answer}\nA right solution, which is not the only one:\n{solution}\n",
}


def judge_text(template_id: str, problem: Problem, steps: Sequence[str], crops: int) -> str:
    """The judge's prompt for numbered steps; `crops` images of executed zooms follow the problem's images. UserError
    for an unknown template, ProblemError if it needs a reference that the problem does not have."""
    if template_id not in JUDGE_TEMPLATES:
        raise UserError(f"unknown judge template {template_id!r}; known: {', '.join(JUDGE_TEMPLATES)}")
    template, solution = JUDGE_TEMPLATES[template_id], problem.meta.get("solution")
    if ("{answer}" in template and problem.answer is None) or ("{solution}" in template and not solution):
        raise ProblemError("no_reference", f"{problem.id} has no reference for {template_id}; judge it with judge@1")
    images = len(problem.images)
    seen = " The last image shows" if crops == 1 else f" The last {crops} images show, in order,"
    return _JUDGE.format(
        images="an image" if images == 1 else f"{images} images",
        crops=f"{seen} what the zoom steps saw." if crops else "",
        question=problem.question,
        reference=template.format(answer=problem.answer, solution=solution),
        steps="\n".join(f"{number}. {text.strip()}" for number, text in enumerate(steps, 1)),
        count=len(steps),
    )


_FIRST_ERROR = """Here is a question{about} and a solution in numbered steps. Find the first step that is wrong: it \
misreads an image, or does not follow.

Question: {question}

Solution:
{steps}

Answer with JSON alone: {{"first_wrong": the number of the first wrong step, or 0 if every step is right}}"""


def first_error_text(problem: Problem, steps: Sequence[str]) -> str:
    """The prompt that asks for the first wrong of the numbered steps (as ProcessBench asks a critic)."""
    numbered = "\n".join(f"{number}. {text.strip()}" for number, text in enumerate(steps, 1))
    about = " about images" if problem.images else ""
    return _FIRST_ERROR.format(about=about, question=problem.question, steps=numbered)
