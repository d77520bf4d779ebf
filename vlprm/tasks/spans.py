"""The claims within a perception step, each with its place in the text and its truth, as Perceval (arXiv 2604.24583)
labels them: a step that reads a row of three cells makes three claims, of which one may be wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vlprm.schema import Problem, Step
from vlprm.steps import untagged
from vlprm.tasks.synthetic import Claim, SyntheticFamily


@dataclass(frozen=True)
class ClaimSpan:
    """A claim: characters `start` to `end` of a step's text, whether it is correct, and the true words. A reading
    that does not have the scene's number of values is one claim without true words."""

    start: int
    end: int
    correct: bool
    true: str


def claim_spans(family: SyntheticFamily, problem: Problem, steps: Sequence[Step]) -> list[list[ClaimSpan]]:
    """The claims of each step; none for a step that reads nothing off the image or does not parse."""
    claims = family.claims(problem, steps)
    return [_spans(step, claim) if claim else [] for step, claim in zip(steps, claims, strict=True)]


def _spans(step: Step, claim: Claim) -> list[ClaimSpan]:
    if step.kind != "perception" or not claim.is_reading:
        return []
    text, found = step.text, list[ClaimSpan]()
    start = text.rindex(untagged(text))
    for said, true in claim.parts:
        place = re.compile(rf"(?<!\w){re.escape(said)}(?!\w)").search(text, found[-1].end if found else start)
        assert place is not None, f"{said!r} is not in {text!r}"
        found.append(ClaimSpan(place.start(), place.end(), said == true, true))
    return found or [ClaimSpan(start, len(text.rstrip()), claim.said == claim.true, "")]
