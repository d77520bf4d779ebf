"""Every prompt template, with an id and a version. A checkpoint names the template it was trained with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class CritiqueTemplate:
    """How a critic is asked about the last step, and the form of its critique.

    `question`: the user's turn after the step; without one, the critique follows the step at once. `verdict_last`: the
    reasons come before the verdict. `max_tokens`: limit of the critique of one step.
    """

    question: str
    verdict_last: bool
    max_tokens: int = 300


CRITIQUE_TEMPLATES: dict[str, CritiqueTemplate] = {
    # The built-in backbone was trained to write the correction right after the step, without a user's turn.
    "plain_critique@2": CritiqueTemplate("", verdict_last=False),
    "plain_critique@3": CritiqueTemplate("", verdict_last=True),
    "critique@2": CritiqueTemplate(
        "Check the last step of the solution; those before it are right. Write `right`, or `wrong: ` and the step as it"
        " should be. Then write a line of this form:\nintent: what the step does; image: agrees or differs; logic:"
        " holds or fails",
        verdict_last=False,
    ),
    # ThinkPRM's order: a chain of thought, and the verdict at its end.
    "critique@3": CritiqueTemplate(
        "Check the last step of the solution; those before it are right. First think: what the image shows, what"
        " follows from the steps before, and whether the step says the same. Then write these two lines, and nothing"
        " after them:\nintent: what the step does; image: agrees or differs; logic: holds or fails\nverdict: right, or"
        " verdict: wrong: and the step as it should be",
        verdict_last=True,
        max_tokens=2048,
    ),
}


def default_critique(prompt_template: str) -> str:
    """The critique template of models with this prompt template, unless their checkpoint declares another."""
    return "plain_critique@2" if prompt_template == "plain@1" else "critique@3"


def critique_template(template_id: str) -> CritiqueTemplate:
    """A critique template. UserError for an unknown one."""
    if template_id not in CRITIQUE_TEMPLATES:
        raise UserError(f"unknown critique template {template_id!r}; known: {', '.join(CRITIQUE_TEMPLATES)}")
    return CRITIQUE_TEMPLATES[template_id]


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

_FIRST_ERROR = """Here is a question{about} and a solution in numbered steps. Find the first step that is wrong: it \
misreads an image, or does not follow.

Question: {question}

Solution:
{steps}

Answer with JSON alone: {{"first_wrong": the number of the first wrong step, or 0 if every step is right}}"""


def first_error_text(problem: Problem, steps: Sequence[str]) -> str:
    """The prompt that asks for the first wrong of the numbered steps (as ProcessBench asks a critic)."""
    return _FIRST_ERROR.format(about=" about images" if problem.images else "", question=problem.question,
                               steps=numbered(steps))  # fmt: skip


_PREFERENCE = """Here is a question{about} and two responses to it. Which response is better? What counts most is \
whether it is right; then how well it answers the question. Neither its length nor its place counts.

Question: {question}

Response A:
{first}

Response B:
{second}

Answer with JSON alone: {{"reason": "...", "better": "A" or "B"}}"""


def preference_text(question: str, first: str, second: str, images: bool) -> str:
    """The prompt that asks which of two responses is better."""
    about = " about images" if images else ""
    return _PREFERENCE.format(about=about, question=question, first=first.strip(), second=second.strip())


def numbered(steps: Sequence[str]) -> str:
    """The steps, one numbered line each."""
    return "\n".join(f"{number}. {text.strip()}" for number, text in enumerate(steps, 1))


# The ground truth that the judge gets. SPARE aligns a solution with a reference solution; the answer alone helps less.
# Most published data was made without either.
JUDGE_TEMPLATES: dict[str, str] = {
    "judge@1": "",
    "judge_answer@1": "\nThe right answer is: {answer}\n",
    "judge_reference@1": "\nThe right answer is: {answer}\nA right solution, which is not the only one:\n{solution}\n",
    "judge_reference@2": (
        "\nThe right answer is: {answer}\nA right solution, not the only one, by numbered lines:\n{numbered}\n\n"
        "Give each step two more fields before its verdict: `uses`, the numbers of the earlier steps of the solution"
        " that it builds on, and `matches`, the numbers of the lines of the right solution that do the same. Either may"
        " be empty.\n"
    ),
}
ALIGNED = ("judge_reference@2",)  # templates whose judgements align steps with the reference


_STEP_QUESTIONS = """A solution to a question about an image has this step:

{step}

The question about the image: {question}

The step says what the image shows. Write one question whose answer, read off the image, tells whether the step is \
true. The question names what is looked at, and neither contains nor suggests what the step says about it. Give the \
short answer that the step gives to it, and its type.

Answer with JSON alone: {{"question": "...", "answer": "...", "type": "integer" or "float" or "word" or "list" or \
"text"}}. If no short answer can tell, leave `question` empty."""

# To judge a perception step by reading the image again: a step is turned into a question without the image, and the
# image is read without the step.
QUESTION_TEMPLATES: dict[str, str] = {"question@1": _STEP_QUESTIONS}
READING_TEMPLATES: dict[str, str] = {
    "reading@1": '{question}\n\nLook at the image. Answer with JSON alone, as short as possible: {{"answer": "..."}}'
}


PREMISES = "judge_premises@1"  # judges each step alone, from the steps that it builds on
CITATION_TEMPLATES: dict[str, str] = {
    PREMISES: """A question about an image: {question}

A solution, step by step:
{steps}

Which of the earlier steps does step {step} build on? Answer with JSON alone: {{"uses": [...]}}, with their numbers."""
}
PREMISES_TEMPLATES: dict[str, str] = {
    PREMISES: """You check one step of a solution to a question about an image.

Question: {question}

The step builds on these statements, which you take as true:
{premises}

The step: {step}

The step is wrong if it misreads the image (perception), if it does not follow from the statements (reasoning), or if \
it asks for a region that does not show what is needed (action). Answer with JSON alone: {{"reason": "...", \
"verdict": "correct" or "wrong", "error": "none" or "perception" or "reasoning" or "action"}}"""
}


# To make a wrong step from a right one.
INJECTION_TEMPLATES: dict[str, str] = {
    "inject@1": """A solution to a question about an image is right up to this point:

{steps}

The question: {question}

Write its last step again with one error of this kind: {error}. Keep its form, its words and its tag wherever you can; \
change one statement only, so that it is wrong but plausible. Do not mention the error.

Answer with JSON alone: {{"step": "..."}}"""
}
ERRORS = {"perception": "it misreads the image", "reasoning": "it does not follow from what was stated before"}


def judge_text(template_id: str, problem: Problem, steps: Sequence[str], crops: int) -> str:
    """The judge's prompt for numbered steps; `crops` images of executed zooms follow the problem's images. UserError
    for an unknown template, ProblemError if it needs a reference that the problem does not have."""
    if template_id not in JUDGE_TEMPLATES:
        raise UserError(f"unknown judge template {template_id!r}; known: {', '.join(JUDGE_TEMPLATES)}")
    template, solution = JUDGE_TEMPLATES[template_id], problem.meta.get("solution")
    if ("{answer}" in template and problem.answer is None) or (
        template_id.startswith("judge_reference") and not solution
    ):
        raise ProblemError("no_reference", f"{problem.id} has no reference for {template_id}; judge it with judge@1")
    images = len(problem.images)
    seen = " The last image shows" if crops == 1 else f" The last {crops} images show, in order,"
    return _JUDGE.format(
        images="an image" if images == 1 else f"{images} images",
        crops=f"{seen} what the zoom steps saw." if crops else "",
        question=problem.question,
        reference=template.format(answer=problem.answer, solution=solution, numbered=numbered(_lines(str(solution)))),
        steps=numbered(steps),
        count=len(steps),
    )


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]
