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
from typing import Any, TypeVar

from vlprm.images import crop, open_image, png, source_of
from vlprm.prompts import ALIGNED, judge_text
from vlprm.schema import ERROR_KINDS, Problem, Step, Verdict, structured

T = TypeVar("T")
CORRECT, WRONG = "correct", "wrong"
CONTROL_TOKEN = re.compile(r"<\|\w+\|>|</?s>|<(start|end)_of_turn>")  # control tokens of all families' chat templates
_FENCE = re.compile(r"```(?:json)?((?:(?!```).)*)```\s*\Z", re.DOTALL | re.IGNORECASE)
_OBJECT = re.compile(r"\{\s*\"")
MOST_OBJECTS = 1000  # tried as the start of the judgement
# Commands of LaTeX that JSON reads as a line break, a tab or a return and the rest of a word that is none.
_COMMANDS = (
    "nabla|natural|ncong|nearrow|neg?|neq|newline|ngeq|ngtr|nleq|not|notin|nsubseteq|nu|nwarrow|tan|tanh|tau|tbinom|"
    "text[a-z]*|tfrac|theta|therefore|tilde|times|to|top|triangle[a-z]*|rangle|rbrace|rceil|rfloor|rho|right[a-z]*|rm|"
    "root|r[vV]ert"
)
# An escape that stays, or else (group 1) a backslash that opens LaTeX.
_BACKSLASH = re.compile(rf"""\\[\\"/]|\\u[0-9a-fA-F]{{4}}|\\(?!(?:{_COMMANDS})(?![A-Za-z]))[ntr]|(\\)""")


@dataclass(frozen=True)
class _Said:
    """One step of a judgement as the model writes it."""

    step: int
    reason: str
    verdict: str
    error: str


@dataclass(frozen=True)
class _Aligned(_Said):
    """As SPARE asks: with the solution's own steps that the step builds on, and the lines of the reference that do the
    same."""

    uses: tuple[int, ...]
    matches: tuple[int, ...]


@dataclass(frozen=True)
class _Judgement:
    steps: tuple[_Said, ...]
    correction: str


@dataclass(frozen=True)
class _AlignedJudgement:
    steps: tuple[_Aligned, ...]
    correction: str


class NoJudgement(ValueError):
    """A judge's answer that cannot be used. `cause` is a single word for counting; `said` describes the fault, if
    known."""

    def __init__(self, cause: str, said: str = "") -> None:
        super().__init__(cause)
        self.cause, self.said = cause, said


def judge_schema(steps: int, template: str = "judge@1") -> dict[str, Any]:
    """The JSON schema of a judgement of `steps` steps."""
    numbers = {"type": "array", "items": {"type": "integer", "minimum": 1}}
    said = {
        "step": {"type": "integer", "minimum": 1, "maximum": steps},
        "reason": {"type": "string"},
        **({"uses": numbers, "matches": numbers} if template in ALIGNED else {}),
        "verdict": {"enum": [CORRECT, WRONG]},
        "error": {"enum": ["none", *ERROR_KINDS]},
    }
    listed = {"type": "array", "items": object_schema(said), "minItems": steps, "maxItems": steps}
    return object_schema({"steps": listed, "correction": {"type": "string"}})


def object_schema(fields: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of an object with exactly these fields."""
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def judge_problem(problem: Problem, steps: Sequence[Step], template: str) -> Problem:
    """The question to the judge: the problem's images and the crops of the solution's zooms, the question, the numbered
    steps, and the reference if the template has one."""
    crops = crops_of(problem, steps)
    text = judge_text(template, problem, [step.text for step in steps], len(crops))
    return dataclasses.replace(problem, question=text, images=(*problem.images, *crops), meta={})


def crops_of(problem: Problem, steps: Sequence[Step]) -> list[bytes]:
    """What the zooms of the steps saw, as PNG."""
    regions = [step.region for step in steps if step.region is not None]
    return [png(crop(open_image(source_of(problem.images, region)), region)) for region in regions]


def parse_judgement(text: str, steps: int, template: str = "judge@1") -> list[Verdict]:
    """One verdict per step. The first wrong step carries the correction. A model may think before its JSON.

    NoJudgement if the text does not end in JSON (`not_json`), lacks fields (`bad_field`), names a step that does not
    exist (`unknown_step`), has missing, extra or repeated steps (`step_count`), or contradicts itself
    (`contradiction`): a correct step with an error, a wrong one without an error, or a correction without a wrong step.
    """
    said: _Judgement | _AlignedJudgement
    said = read_json(_AlignedJudgement, text) if template in ALIGNED else read_json(_Judgement, text)
    if any(not 1 <= item.step <= steps for item in said.steps):
        raise NoJudgement("unknown_step")
    if [item.step for item in said.steps] != list(range(1, steps + 1)):
        raise NoJudgement("step_count")
    if any(not 1 <= used < item.step for item in said.steps if isinstance(item, _Aligned) for used in item.uses):
        raise NoJudgement("unknown_step")
    verdicts = [_verdict(item) for item in said.steps]
    first = next((i for i, verdict in enumerate(verdicts) if not verdict.correct), None)
    if first is None and said.correction.strip():
        raise NoJudgement("contradiction")
    if first is not None:
        verdicts[first] = dataclasses.replace(verdicts[first], correction=said.correction.strip())
    return verdicts


def last_json(text: str) -> Any:
    """The JSON value that a text consists of, or ends with after thoughts: after `</think>`, in a fence, or as it is.
    NoJudgement if there is none."""
    answer = text.removeprefix("\ufeff").rpartition("</think>")[2]
    fenced = _FENCE.search(answer)
    opened = [found.start() for found in _OBJECT.finditer(answer)][-MOST_OBJECTS:]
    for part in (answer, *([fenced[1]] if fenced else []), *(answer[start:] for start in opened)):
        try:
            return json.loads(_with_latex(part))
        except (ValueError, RecursionError):
            continue
    raise NoJudgement("not_json")


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
    reason = said.reason.strip()
    if isinstance(said, _Aligned):
        aligned = (("uses steps", said.uses), ("matches lines", said.matches))
        parts = (f"{what} {', '.join(map(str, numbers))}" for what, numbers in aligned if numbers)
        reason = "; ".join(filter(None, (reason, *parts)))
    return Verdict(correct, None if correct else said.error, reason)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _OfOne:
    """A judgement of one step."""

    reason: str
    verdict: str
    error: str


@dataclass(frozen=True)
class _Cited:
    uses: tuple[int, ...]


def parse_verdict(text: str) -> Verdict:
    """The judgement of a single step. NoJudgement as for `parse_judgement`."""
    said = read_json(_OfOne, text)
    return _verdict(_Said(1, said.reason, said.verdict, said.error))


def parse_citation(text: str, step: int) -> tuple[int, ...]:
    """The numbers of the earlier steps that a step builds on, in order. NoJudgement if one is not an earlier step."""
    uses = read_json(_Cited, text).uses
    if any(not 1 <= used < step for used in uses):
        raise NoJudgement("unknown_step")
    return tuple(sorted(set(uses)))


def read_json(kind: type[T], text: str) -> T:
    """The object that a model's answer ends with. NoJudgement if there is none, or if its fields are others."""
    body = last_json(text)
    try:
        return structured(kind, body, "not a judgement")
    except ValueError as error:
        raise NoJudgement("bad_field", str(error)) from error


def majority(votes: Sequence[Verdict]) -> Verdict | None:
    """The majority verdict on a step, with the commonest error kind of its side, and the first reason of that kind. The
    correction is the first of that kind or, without one, of the whole side: it is the true step, whatever the kind.
    None on a tie or without votes."""
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
        next((vote.correction for vote in (*spoken, *side) if vote.correction), ""),
        len(side) / len(votes),
    )
