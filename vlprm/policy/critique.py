"""Critiques: for each step its intent, its agreement with the image, its logic and a verdict, up to the first wrong
step, and a correction of that step (the content of GM-PRM, arXiv 2508.04088, section 3).

    engine = LocalPolicy(load_reward_model("runs/critic"))
    template = engine.checkpoint.config.critiques
    (critique,) = await sample_critiques(engine, problem, solution.steps, template, key="mine", seed=0)
    print(critique and (critique.first_wrong, critique.corrected))

The model is asked after each step, before it sees what follows, until it calls a step wrong. It writes plain text, so
that any model can be asked and any can learn the format. The verdict is last, after reasons in free words and a line
that sums them up (ThinkPRM's order, arXiv 2504.16828):

    The first cell of the row is blue, not red.
    intent: reads the image; image: differs; logic: holds
    verdict: wrong: [perception] row 1: blue none red

For a right step, the last line is `verdict: right`. Or the verdict is first, as `right` or `(wrong: ...)`, and that
line follows: a small model notices an error right after the step, but not some fifty tokens later.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vlprm.policy import Policy, Request, all_answers
from vlprm.prompts import CritiqueTemplate
from vlprm.schema import ErrorKind, Problem, Step
from vlprm.steps import SEPARATOR, parse_step

INTENTS = {
    "perception": "reads the image",
    "reasoning": "derives",
    "zoom": "looks closer",
    "answer": "answers",
    "other": "goes on",
}
RIGHT, WRONG = "right", "(wrong: "
VERDICT, WRONG_LAST = "verdict: ", "wrong: "
_WHY = re.compile(r"intent: ([^\n]+?); image: (agrees|differs); logic: (holds|fails)")
_REASONS_FIRST = re.compile(rf"(?:(.*)\n)?{_WHY.pattern}\n{VERDICT}({RIGHT}|{WRONG_LAST}.+)", re.DOTALL)


@dataclass(frozen=True)
class StepCritique:
    """The critique of one step, with a correction if the step is called wrong, and the reasons before the verdict in
    free words."""

    intent: str
    agrees_with_image: bool
    follows: bool
    corrected: Step | None
    reason: str = ""


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


def critique_of(
    step: Step, error_kind: ErrorKind | None = None, corrected: Step | None = None, reason: str = ""
) -> StepCritique:
    """The critique of a wrong step with this kind of error, or of a right step if no correction is given."""
    if corrected is None:
        return StepCritique(INTENTS[step.kind], True, True, None, reason)
    return StepCritique(INTENTS[step.kind], error_kind == "reasoning", error_kind != "reasoning", corrected, reason)


def critique_text(said: StepCritique, template: CritiqueTemplate) -> str:
    """The critique as the text that a model learns to write."""
    image, logic = "agrees" if said.agrees_with_image else "differs", "holds" if said.follows else "fails"
    why = f"intent: {said.intent}; image: {image}; logic: {logic}"
    if not template.verdict_last:
        return f"{WRONG}{said.corrected.text})\n{why}" if said.corrected else f"{RIGHT}\n{why}"
    verdict = f"{WRONG_LAST}{said.corrected.text}" if said.corrected else RIGHT
    return "\n".join([*([said.reason] if said.reason else []), why, VERDICT + verdict])


def critique_answer(said: StepCritique, template: CritiqueTemplate) -> str:
    """The critique as the answer to the template's question. Without a question, it continues the solution's text: in a
    new paragraph, as a next step would, but a correction that comes first in the step's own paragraph."""
    if template.question:
        return critique_text(said, template)
    in_paragraph = said.corrected and not template.verdict_last
    return (" " if in_paragraph else SEPARATOR) + critique_text(said, template)


def parse_critique(text: str, template: CritiqueTemplate) -> StepCritique | None:
    """Parse what `critique_text` writes; None for any other text, such as one that ends before its verdict, or a wrong
    step without a correction."""
    if template.verdict_last:
        return _reasons_first(text.strip())
    verdict, _, why = text.strip().rpartition("\n")
    said, corrected = _WHY.fullmatch(why), verdict.removeprefix(WRONG).removesuffix(")").strip()
    if not said or not (verdict == RIGHT or (corrected and verdict == f"{WRONG}{corrected})")):
        return None
    instead = None if verdict == RIGHT else parse_step(corrected)
    return StepCritique(said[1], said[2] == "agrees", said[3] == "holds", instead)


def _reasons_first(text: str) -> StepCritique | None:
    said = _REASONS_FIRST.fullmatch(text)
    if said is None or f"\n{VERDICT}" in said[5]:  # two verdicts in a row are none
        return None
    instead = None if said[5] == RIGHT else parse_step(said[5].removeprefix(WRONG_LAST).strip())
    return StepCritique(said[2], said[3] == "agrees", said[4] == "holds", instead, (said[1] or "").strip())


def verdict_texts(written: str, template: CritiqueTemplate) -> tuple[str, str] | None:
    """The beginnings of a critique that calls a step right and of one that calls it wrong, where only the verdicts
    differ. If the reasons come first, they are those that were `written`; None if these end before a verdict."""
    if not template.verdict_last:
        right, wrong = f"{RIGHT}\nintent", f"{WRONG}["
        return (right, wrong) if template.question else (SEPARATOR + right, f" {wrong}")
    if parse_critique(written, template) is None:
        return None
    reasons = written[: written.rindex(f"\n{VERDICT}") + 1] + VERDICT
    return reasons + RIGHT, reasons + WRONG_LAST


async def right_probability(
    engine: Policy,
    problem: Problem,
    steps: Sequence[Step],
    template: CritiqueTemplate,
    key: str,
    seed: int,
    n: int,
    temperature: float,
) -> float | None:
    """The probability that the last step is called right rather than wrong, read where the verdict begins: the mean
    over `n` sampled reasons if these come first (ThinkPRM, arXiv 2504.16828), else from one pass. None if no critique
    reaches its verdict, or the policy does not know the probability."""
    request = Request(problem, tuple(steps), n, key, seed, temperature, template.max_tokens, asked=template.question)
    reasons = [""]
    if template.verdict_last:
        reasons = [written.text for written in await engine.sample(request) if not written.incomplete]
    answers = await all_answers(
        engine.sample(replace(request, n=1, key=f"{key}/verdict/{i}", temperature=1.0, max_tokens=1, between=texts))
        for i, written in enumerate(reasons)
        if (texts := verdict_texts(written, template))
    )
    found = [answer.probability for (answer,) in answers if answer.probability is not None]
    return sum(found) / len(found) if found else None


async def sample_critiques(
    engine: Policy,
    problem: Problem,
    steps: Sequence[Step],
    template: CritiqueTemplate,
    key: str,
    seed: int,
    n: int = 1,
    temperature: float = 0.0,
) -> list[Critique | None]:
    """Sample `n` critiques of a solution; None where the policy failed or wrote no valid critique. The template is the
    one that the checkpoint of the model declares (`CheckpointConfig.critiques`)."""
    said: list[list[StepCritique]] = [[] for _ in range(n)]
    going = list(range(n))
    for end in range(1, len(steps) + 1):
        asked = step_critiques(engine, problem, steps[:end], template, f"{key}/{end}", seed, len(going), temperature)
        going_on = []
        for i, (_, line) in zip(going, await asked, strict=True):
            said[i] = [*said[i], line] if line else []
            if line and line.corrected is None:
                going_on.append(i)
        if not (going := going_on):
            break
    return [Critique(tuple(lines)) if lines else None for lines in said]


async def step_critiques(
    engine: Policy,
    problem: Problem,
    steps: Sequence[Step],
    template: CritiqueTemplate,
    key: str,
    seed: int,
    n: int,
    temperature: float,
) -> list[tuple[str, StepCritique | None]]:
    """Sample `n` critiques of the last step: what was written, and what it says; None where the policy failed or wrote
    no valid critique. A correction that repeats the step means that the step is right."""
    request = Request(problem, tuple(steps), n, key, seed, temperature, template.max_tokens, asked=template.question)
    found = []
    for written in await engine.sample(request):
        said = None if written.incomplete else parse_critique(written.text, template)
        if said and said.corrected and said.corrected.text == steps[-1].text.strip():
            said = critique_of(steps[-1], reason=said.reason)
        found.append((written.text, said))
    return found
