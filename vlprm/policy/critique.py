"""Critiques: for each step its intent, its agreement with the image, its logic and a verdict, up to the first wrong
step, and that step as it should be (the content of GM-PRM, arXiv 2508.04088, section 3).

    engine = LocalPolicy(load_reward_model("runs/critic"))
    question = critique_question(engine.checkpoint.profile.prompt_template)
    (critique,) = await ask(engine, problem, solution.steps, question, key="mine", seed=0)
    print(critique and (critique.first_wrong, critique.corrected))

A model is asked after each step, before it has seen what follows, and no more after the first that it calls wrong. What
it writes is plain text, so that any model can be asked and any can learn to write it:

    (wrong: [perception] row 1: red none blue)
    intent: reads the image; image: differs; logic: holds

or, of a right step, `right` in the first line. The verdict and the correction come first: a small model sees a slip
right where it stands, and not some fifty tokens later.
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
MAX_TOKENS = 300  # of what is said of a step
RIGHT, WRONG = "right", "(wrong: "
_WHY = re.compile(r"intent: (.+?); image: (agrees|differs); logic: (holds|fails)")


@dataclass(frozen=True)
class StepCritique:
    """What is said of one step, and the step as it should be where it is called wrong."""

    intent: str
    agrees_with_image: bool
    follows: bool
    corrected: Step | None


@dataclass(frozen=True)
class Critique:
    """What is said of a solution's steps, up to the first that is called wrong."""

    steps: tuple[StepCritique, ...]

    @property
    def corrected(self) -> Step | None:
        """The first wrong step as it should be; None where no step is called wrong."""
        return self.steps[-1].corrected

    @property
    def first_wrong(self) -> int | None:
        """Index of the step that is called wrong."""
        return None if self.corrected is None else len(self.steps) - 1


def critique_of(step: Step, error_kind: ErrorKind | None = None, corrected: Step | None = None) -> StepCritique:
    """The critique of a step that is wrong, in this way, if there is a correction, and right if there is none."""
    if corrected is None:
        return StepCritique(INTENTS[step.kind], True, True, None)
    return StepCritique(INTENTS[step.kind], error_kind == "reasoning", error_kind != "reasoning", corrected)


def critique_text(said: StepCritique) -> str:
    image, logic = "agrees" if said.agrees_with_image else "differs", "holds" if said.follows else "fails"
    verdict = f"{WRONG}{said.corrected.text})" if said.corrected else RIGHT
    return f"{verdict}\nintent: {said.intent}; image: {image}; logic: {logic}"


def critique_answer(said: StepCritique, question: str) -> str:
    """The critique as the answer to this question. Where there is none it goes on from the step: to say that this is
    right, as the next step would; else in the step's own paragraph."""
    if question:
        return critique_text(said)
    return (" " if said.corrected else SEPARATOR) + critique_text(said)


def parse_critique(text: str) -> StepCritique | None:
    """What `critique_text` writes; None for anything else, such as a wrong step that is not put right."""
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
    """So many critiques of a solution; None where the engine failed, or wrote none. `question` is that of
    `vlprm.prompts.critique_question` for the model that is asked."""
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
                line = critique_of(steps[end - 1])  # a step that is as it should be
            said[i] = [*said[i], line] if line else []
            if line and line.corrected is None:
                going_on.append(i)
        if not (going := going_on):
            break
    return [Critique(tuple(lines)) if lines else None for lines in said]
