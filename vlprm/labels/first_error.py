"""Ask any vision-language model for the first wrong step of a solution, and parse its answer strictly."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

from vlprm.labels.judge import NoJudgement
from vlprm.prompts import first_error_text
from vlprm.schema import Problem, Step

_FENCE = re.compile(r"\s*```(?:json)?(.*)```\s*", re.DOTALL | re.IGNORECASE)


def first_error_problem(problem: Problem, steps: Sequence[Step]) -> Problem:
    """The question for the first wrong step: the problem's images, the question and the numbered steps."""
    return dataclasses.replace(problem, question=first_error_text(problem, [step.text for step in steps]), meta={})


def first_error_schema(steps: int) -> dict[str, Any]:
    """The JSON schema of the answer about `steps` steps."""
    fields = {"first_wrong": {"type": "integer", "minimum": 0, "maximum": steps}}
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def parse_first_error(text: str, steps: int) -> list[bool]:
    """Whether each step comes before the first wrong one. NoJudgement if the text is not JSON (`not_json`) or does not
    name a step or 0 (`unknown_step`)."""
    fenced = _FENCE.fullmatch(text)
    try:
        body = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError) as error:
        raise NoJudgement("not_json") from error
    first = body.get("first_wrong") if isinstance(body, dict) else None
    if type(first) is not int or not 0 <= first <= steps:
        raise NoJudgement("unknown_step")
    return [first == 0 or step < first for step in range(1, steps + 1)]
