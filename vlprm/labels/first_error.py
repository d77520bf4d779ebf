"""Ask any vision-language model for the first wrong step of a solution, and parse its answer strictly."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from vlprm.labels.judge import NoJudgement, last_json, object_schema
from vlprm.prompts import first_error_text
from vlprm.schema import Problem, Step


def first_error_problem(problem: Problem, steps: Sequence[Step]) -> Problem:
    """The question for the first wrong step: the problem's images, the question and the numbered steps."""
    return dataclasses.replace(problem, question=first_error_text(problem, [step.text for step in steps]), meta={})


def first_error_schema(steps: int) -> dict[str, Any]:
    """The JSON schema of the answer about `steps` steps."""
    return object_schema({"first_wrong": {"type": "integer", "minimum": 0, "maximum": steps}})


def parse_first_error(text: str, steps: int) -> list[bool]:
    """Whether each step comes before the first wrong one. NoJudgement if the text is not JSON (`not_json`) or does not
    name a step or 0 (`unknown_step`)."""
    body = last_json(text)
    first = body.get("first_wrong") if isinstance(body, dict) else None
    if type(first) is not int or not 0 <= first <= steps:
        raise NoJudgement("unknown_step")
    return [first == 0 or step < first for step in range(1, steps + 1)]
