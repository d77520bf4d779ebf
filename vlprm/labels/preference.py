"""Ask any vision-language model which of two responses is better, and parse its answer strictly."""

from __future__ import annotations

import dataclasses
from typing import Any

from vlprm.labels.judge import NoJudgement, last_json, object_schema
from vlprm.prompts import preference_text
from vlprm.schema import Problem

PREFERENCE_SCHEMA: dict[str, Any] = object_schema({"reason": {"type": "string"}, "better": {"enum": ["A", "B"]}})


def preference_problem(problem: Problem, first: str, second: str) -> Problem:
    """The question which response is better: the problem's images, its question and the responses in this order."""
    question = preference_text(problem.question, first, second, bool(problem.images))
    return dataclasses.replace(problem, question=question, meta={})


def prefers_first(text: str) -> bool:
    """Whether an answer prefers the response shown first. NoJudgement if the text is not JSON (`not_json`) or names
    neither (`no_choice`)."""
    body = last_json(text)
    better = body.get("better") if isinstance(body, dict) else None
    if better not in ("A", "B"):
        raise NoJudgement("no_choice")
    return bool(better == "A")
