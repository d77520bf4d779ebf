"""Judge each step alone, from the steps that it builds on (Deductive Verification, arXiv 2306.03872).

A first call, without the image, names the premises of a step; a second one sees the image, the question, those premises
and the step. A step that follows from a wrong premise passes, so these verdicts tell whether a step is right only up to
a solution's first error (`local` in the records).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from data_synth.judges.config import SamplingConfig
from data_synth.judges.model import Judged, judge_each_step, read_answers, to_judge
from vlprm.labels.judge import (
    CONTROL_TOKEN,
    CORRECT,
    WRONG,
    crops_of,
    majority,
    object_schema,
    parse_citation,
    parse_verdict,
)
from vlprm.policy import Policy, Request
from vlprm.prompts import CITATION_TEMPLATES, PREMISES, PREMISES_TEMPLATES, numbered
from vlprm.schema import ERROR_KINDS, Problem, Step, StepTree, Verdict

T = TypeVar("T")
NUMBERS = {"type": "array", "items": {"type": "integer", "minimum": 1}}
CITATION_SCHEMA = object_schema({"uses": NUMBERS})
VERDICT_SCHEMA = object_schema(
    {"reason": {"type": "string"}, "verdict": {"enum": [CORRECT, WRONG]}, "error": {"enum": ["none", *ERROR_KINDS]}}
)


async def premises_tree(problem: Problem, tree: StepTree, engine: Policy, config: SamplingConfig, seed: int) -> Judged:
    """Judge the steps of up to `config.solutions` solutions of a tree, each once."""
    judged = to_judge(problem, tree, config)
    return await judge_each_step(tree, judged, lambda node: _verdict(problem, tree, node, engine, config, seed, judged))


async def _verdict(
    problem: Problem, tree: StepTree, node: int, engine: Policy, config: SamplingConfig, seed: int, judged: Judged
) -> Verdict | None:
    steps = [tree.nodes[n].step for n in tree.path(node)]
    if any(CONTROL_TOKEN.search(step.text) for step in steps):
        judged.failed("control_token")
        return None

    async def asked(shown: Problem, n: int, name: str, schema: dict[str, Any], read: Callable[[str], T]) -> list[T]:
        key = f"{problem.id}#{name}{node}"
        request = Request(shown, (), n, key, seed, config.temperature, config.max_tokens, schema)
        return await read_answers(request, engine, config.tries, judged, read)

    cited: tuple[int, ...] = ()
    if len(steps) > 1:
        found = await asked(
            _citing(problem, steps), 1, "premises", CITATION_SCHEMA, lambda text: parse_citation(text, len(steps))
        )
        if not found:
            return None
        (cited,) = found
    shown = _shown(problem, steps, cited)
    return majority(await asked(shown, config.samples, "step", VERDICT_SCHEMA, parse_verdict))


def _citing(problem: Problem, steps: list[Step]) -> Problem:
    listed = numbered([step.text for step in steps])
    text = CITATION_TEMPLATES[PREMISES].format(question=problem.question, steps=listed, step=len(steps))
    return dataclasses.replace(problem, question=text, images=(), meta={})


def _shown(problem: Problem, steps: list[Step], cited: tuple[int, ...]) -> Problem:
    """The question about the last step: the premises, and the crops of their zooms and its own."""
    crops = crops_of(problem, [*(steps[n - 1] for n in cited), steps[-1]])
    premises = "\n".join(f"- {steps[n - 1].text.strip()}" for n in cited) or "- none"
    text = PREMISES_TEMPLATES[PREMISES].format(
        question=problem.question, premises=premises, step=steps[-1].text.strip()
    )
    return dataclasses.replace(problem, question=text, images=(*problem.images, *crops), meta={})
