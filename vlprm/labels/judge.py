"""Ask a vision-language model to judge a solution step by step, and parse its answer strictly.

SPARE (AAAI 2026) introduced the single pass over numbered steps with an optional reference, VL-PRM the error kinds, and
GM-PRM (arXiv 2508.04088) the correction of the first wrong step.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlprm.images import crop, open_image, png, source_of
from vlprm.prompts import judge_text
from vlprm.schema import ERROR_KINDS, Problem, Step, Verdict, structured

CORRECT, WRONG = "correct", "wrong"
_FENCE = re.compile(r"\ufeff?\s*```(?:json)?(.*)```\s*", re.DOTALL | re.IGNORECASE)
# Commands of LaTeX that JSON reads as a line break, a tab or a return and the rest of a word that is none.
_COMMANDS = (
    "nabla|natural|ncong|nearrow|neg?|neq|newline|ngeq|ngtr|nleq|not|notin|nsubseteq|nu|nwarrow|tan|tanh|tau|tbinom|"
    "text[a-z]*|tfrac|theta|therefore|tilde|times|to|top|triangle[a-z]*|rangle|rbrace|rceil|rfloor|rho|right[a-z]*|rm|"
    "root|r[vV]ert"
)
# An escape that stays, or else (group 1) a backslash that opens LaTeX.
_BACKSLASH = re.compile(rf"""\\[\\"/]|\\u[0-9a-fA-F]{{4}}|\\(?!(?:{_COMMANDS})(?![A-Za-z]))[ntr]|(\\)""")
CONTROL_TOKEN = re.compile(r"<\|\w+\|>|</?s>|<(start|end)_of_turn>")  # control tokens of all families' chat templates


@dataclass(frozen=True)
class _Said:
    """One step of a judgement as the model writes it."""

    step: int
    reason: str
    verdict: str
    error: str


@dataclass(frozen=True)
class _Judgement:
    steps: tuple[_Said, ...]
    correction: str


class NoJudgement(ValueError):
    """A judge's answer that cannot be used. `cause` is a single word for counting; `said` describes the fault, if
    known."""

    def __init__(self, cause: str, said: str = "") -> None:
        super().__init__(cause)
        self.cause, self.said = cause, said


def judge_schema(steps: int) -> dict[str, Any]:
    """The JSON schema of a judgement of `steps` steps."""
    said = {
        "step": {"type": "integer", "minimum": 1, "maximum": steps},
        "reason": {"type": "string"},
        "verdict": {"enum": [CORRECT, WRONG]},
        "error": {"enum": ["none", *ERROR_KINDS]},
    }
    item = {"type": "object", "properties": said, "required": list(said), "additionalProperties": False}
    listed = {"type": "array", "items": item, "minItems": steps, "maxItems": steps}
    fields = {"steps": listed, "correction": {"type": "string"}}
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def judge_problem(problem: Problem, steps: Sequence[Step], template: str) -> Problem:
    """The question to the judge: the problem's images and the crops of the solution's zooms, the question, the numbered
    steps, and the reference if the template has one."""
    regions = [step.region for step in steps if step.region is not None]
    crops = [png(crop(open_image(source_of(problem.images, region)), region)) for region in regions]
    text = judge_text(template, problem, [step.text for step in steps], len(crops))
    return dataclasses.replace(problem, question=text, images=(*problem.images, *crops), meta={})


def parse_judgement(text: str, steps: int) -> list[Verdict]:
    """One verdict per step. The first wrong step carries the correction.

    NoJudgement if the text is not JSON (`not_json`), lacks fields (`bad_field`), names a step that does not exist
    (`unknown_step`), has missing, extra or repeated steps (`step_count`), or contradicts itself (`contradiction`): a
    correct step with an error, a wrong one without an error, or a correction without a wrong step.
    """
    fenced = _FENCE.fullmatch(text)
    try:
        body = json.loads(_with_latex(fenced[1] if fenced else text.removeprefix("\ufeff")))
    except (ValueError, RecursionError) as error:
        raise NoJudgement("not_json") from error
    try:
        said = structured(_Judgement, body, "not a judgement")
    except ValueError as error:
        raise NoJudgement("bad_field", str(error)) from error
    if any(not 1 <= item.step <= steps for item in said.steps):
        raise NoJudgement("unknown_step")
    if [item.step for item in said.steps] != list(range(1, steps + 1)):
        raise NoJudgement("step_count")
    verdicts = [_verdict(item) for item in said.steps]
    first = next((i for i, verdict in enumerate(verdicts) if not verdict.correct), None)
    if first is None and said.correction.strip():
        raise NoJudgement("contradiction")
    if first is not None:
        verdicts[first] = dataclasses.replace(verdicts[first], correction=said.correction.strip())
    return verdicts


def _with_latex(text: str) -> str:
    """JSON text in which backslashes that open LaTeX are escaped. Models write `\\frac` with one backslash, which JSON
    reads as a form feed and `rac`, or refuses."""
    return _BACKSLASH.sub(lambda found: found[0] if found[1] is None else "\\" + found[0], text)


def _verdict(said: _Said) -> Verdict:
    if said.verdict not in (CORRECT, WRONG) or said.error not in ("none", *ERROR_KINDS):
        raise NoJudgement("bad_field")
    correct = said.verdict == CORRECT
    if correct != (said.error == "none"):
        raise NoJudgement("contradiction")
    return Verdict(correct, None if correct else said.error, said.reason.strip())  # type: ignore[arg-type]


def majority(votes: Sequence[Verdict]) -> Verdict | None:
    """The majority verdict on a step, with the first reason and correction from its side; None on a tie or without
    votes."""
    correct = sum(vote.correct for vote in votes)
    if 2 * correct == len(votes):
        return None
    side = [vote for vote in votes if vote.correct == (2 * correct > len(votes))]
    kind = Counter(vote.error_kind for vote in side).most_common(1)[0][0]
    spoken = [vote for vote in side if vote.error_kind == kind]
    return Verdict(
        side[0].correct,
        kind,
        next((vote.reason for vote in spoken if vote.reason), ""),
        next((vote.correction for vote in spoken if vote.correction), ""),
        len(side) / len(votes),
    )
