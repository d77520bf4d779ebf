"""Critiques: for each step its intent, its agreement with the image, its logic and a verdict, up to the first wrong
step, and a correction of that step (the content of GM-PRM, arXiv 2508.04088, section 3).

    engine = LocalPolicy(load_reward_model("runs/critic"))
    question = critique_question(engine.checkpoint.config.prompt_template)
    (critique,) = await sample_critiques(engine, problem, solution.steps, question, key="mine", seed=0)
    print(critique and (critique.first_wrong, critique.corrected))

The model is asked after each step, before it sees what follows, until it calls a step wrong. It writes plain text, so
that any model can be asked and any can learn the format:

    (wrong: [perception] row 1: red none blue)
    intent: reads the image; image: differs; logic: holds

For a right step, the first line is `right`. The verdict and the correction come first, because a small model notices an
error right after the step, but not some fifty tokens later.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vlprm.policy import Policy, Request
from vlprm.schema import ErrorKind, Problem, Step
from vlprm.steps import SEPARATOR, parse_step

INTENTS = {
    "perception": "reads the image",
    "reasoning": "derives",
    "zoom": "looks closer",
    "answer": "answers",
    "other": "goes on",
}
MAX_TOKENS = 300  # of the critique of one step
RIGHT, WRONG = "right", "(wrong: "
_WHY = re.compile(r"intent: (.+?); image: (agrees|differs); logic: (holds|fails)")


@dataclass(frozen=True)
class StepCritique:
    """The critique of one step, with a correction if the step is called wrong."""

    intent: str
    agrees_with_image: bool
    follows: bool
    corrected: Step | None


@dataclass(frozen=True)
class Critique:
    """The critiques of a solution's steps, up to the first that is called wrong."""

    steps: tuple[StepCritique, ...]

    @property
    def corrected(self) -> Step | None:
        """The correction of the first wrong step; None if no step is called wrong."""
        return self.steps[-1].corrected

    @property
    def first_wrong(self) -> int | None:
        """Index of the step that is called wrong; None if there is none."""
        return None if self.corrected is None else len(self.steps) - 1


def critique_of(step: Step, error_kind: ErrorKind | None = None, corrected: Step | None = None) -> StepCritique:
    """The critique of a wrong step with this kind of error, or of a right step if no correction is given."""
    if corrected is None:
        return StepCritique(INTENTS[step.kind], True, True, None)
    return StepCritique(INTENTS[step.kind], error_kind == "reasoning", error_kind != "reasoning", corrected)


def critique_text(said: StepCritique) -> str:
    """The critique as the text that a model learns to write."""
    image, logic = "agrees" if said.agrees_with_image else "differs", "holds" if said.follows else "fails"
    verdict = f"{WRONG}{said.corrected.text})" if said.corrected else RIGHT
    return f"{verdict}\nintent: {said.intent}; image: {image}; logic: {logic}"


def critique_answer(said: StepCritique, question: str) -> str:
    """The critique as the answer to this question. Without a question, it continues the solution's text: `right`
    follows in a new paragraph, as a next step would, a correction in the step's own paragraph."""
    if question:
        return critique_text(said)
    return (" " if said.corrected else SEPARATOR) + critique_text(said)


def parse_critique(text: str) -> StepCritique | None:
    """Parse what `critique_text` writes; None for any other text, such as a wrong step without a correction."""
    verdict, _, why = text.strip().rpartition("\n")
    said, corrected = _WHY.fullmatch(why), verdict.removeprefix(WRONG).removesuffix(")").strip()
    if not said or not (verdict == RIGHT or (corrected and verdict == f"{WRONG}{corrected})")):
        return None
    instead = None if verdict == RIGHT else parse_step(corrected)
    return StepCritique(said[1], said[2] == "agrees", said[3] == "holds", instead)


async def sample_critiques(
    engine: Policy,
    problem: Problem,
    steps: Sequence[Step],
    question: str,
    key: str,
    seed: int,
    n: int = 1,
    temperature: float = 0.0,
) -> list[Critique | None]:
    """Sample `n` critiques of a solution; None where the policy failed or wrote no valid critique. `question` comes
    from `vlprm.prompts.critique_question` for the model that is asked."""
    said: list[list[StepCritique]] = [[] for _ in range(n)]
    going = list(range(n))
    for end in range(1, len(steps) + 1):
        request = Request(
            problem, tuple(steps[:end]), len(going), f"{key}/{end}", seed, temperature, MAX_TOKENS, asked=question
        )
        going_on = []
        for i, written in zip(going, await engine.sample(request), strict=True):
            line = parse_critique(written.text) if written.ended and not written.failure else None
            if line and line.corrected and line.corrected.text == steps[end - 1].text.strip():
                line = critique_of(steps[end - 1])  # a correction that repeats the step means that the step is right
            said[i] = [*said[i], line] if line else []
            if line and line.corrected is None:
                going_on.append(i)
        if not (going := going_on):
            break
    return [Critique(tuple(lines)) if lines else None for lines in said]
