"""Critiques: for each step its intent, its agreement with the image, its logic and a verdict, up to the first wrong
step, and that step as it should be (the form of GM-PRM, arXiv 2508.04088, section 3).

    engine = LocalEngine(load_reward_model("runs/critic"))
    question = critique_question(engine.checkpoint.profile.prompt_template)
    (critique,) = await ask(engine, problem, solution.steps, question, key="mine", seed=0)
    print(critique and (critique.first_wrong, critique.corrected))

A critique is plain text, a line a step, so that any model can be asked for one and any can learn to write it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vlprm.engines import Engine, Request
from vlprm.schema import ErrorKind, Problem, Step
from vlprm.steps import parse_step

INTENTS = {
    "perception": "reads the image",
    "reasoning": "derives",
    "zoom": "looks closer",
    "answer": "answers",
    "other": "goes on",
}
MAX_TOKENS = 600
_LINE = re.compile(r"(\d+)\. intent: (.+?); image: (agrees|differs); logic: (holds|fails); verdict: ([+-])")
_CORRECTED = "instead: "


@dataclass(frozen=True)
class StepCritique:
    """What is said of one step."""

    intent: str
    agrees_with_image: bool
    follows: bool
    correct: bool


@dataclass(frozen=True)
class Critique:
    """What is said of the steps up to the first wrong one, and that step as it should be. `corrected` is None where no
    step is called wrong."""

    steps: tuple[StepCritique, ...]
    corrected: Step | None

    @property
    def first_wrong(self) -> int | None:
        """Index of the step that is called wrong."""
        return None if self.corrected is None else len(self.steps) - 1


def critique_of(steps: Sequence[Step], error_kind: ErrorKind | None, corrected: Step | None) -> Critique:
    """The critique of steps of which the last is wrong, in this way, if there is a correction, and all are right if
    there is none."""
    said = [StepCritique(INTENTS[step.kind], True, True, True) for step in steps]
    if corrected is not None:
        seen, follows = error_kind == "reasoning", error_kind != "reasoning"
        said[-1] = StepCritique(said[-1].intent, seen, follows, False)
    return Critique(tuple(said), corrected)


def critique_text(critique: Critique) -> str:
    lines = [
        f"{number}. intent: {said.intent}; image: {'agrees' if said.agrees_with_image else 'differs'};"
        f" logic: {'holds' if said.follows else 'fails'}; verdict: {'+' if said.correct else '-'}"
        for number, said in enumerate(critique.steps, 1)
    ]
    return "\n".join([*lines, *([_CORRECTED + critique.corrected.text] if critique.corrected else [])])


def parse_critique(text: str, n_steps: int) -> Critique | None:
    """What `critique_text` writes of a solution of so many steps; None for anything else: a line that is not one, a
    step left out, a wrong step that is not the last or is not put right, or a solution that is left before its end."""
    head, mark, corrected = text.strip().partition("\n" + _CORRECTED)
    lines = [_LINE.fullmatch(line) for line in head.split("\n")]
    if not all(lines) or [int(m[1]) for m in lines if m] != list(range(1, len(lines) + 1)):
        return None
    said = [StepCritique(m[2], m[3] == "agrees", m[4] == "holds", m[5] == "+") for m in lines if m]
    wrong = [not step.correct for step in said]
    if any(wrong[:-1]) or wrong[-1] != bool(mark) or len(said) > n_steps or (not wrong[-1] and len(said) < n_steps):
        return None
    if mark and not corrected.strip():
        return None
    return Critique(tuple(said), parse_step(corrected.strip()) if mark else None)


async def ask(
    engine: Engine,
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
    request = Request(problem, tuple(steps), n, key, seed, temperature, MAX_TOKENS, asked=question)
    return [
        parse_critique(written.text, len(steps)) if written.ended and not written.failure else None
        for written in await engine.sample(request)
    ]
