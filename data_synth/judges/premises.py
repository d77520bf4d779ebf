"""Judge each step alone, from the steps that it builds on (Deductive Verification, arXiv 2306.03872).

A first call, without the image, names the premises of a step; a second one sees the image, the question, those premises
and the step. A step that follows from a wrong premise passes, so these verdicts tell whether a step is right only up to
a solution's first error (`local` in the records).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from data_synth.judges.config import AskConfig
from data_synth.judges.model import Judged, read_answers
from data_synth.search.tree import read_solutions
from vlprm.images import crop, open_image, png, source_of
from vlprm.labels.judge import CONTROL_TOKEN, CORRECT, WRONG, majority, object_schema, parse_citation, parse_verdict
from vlprm.policy import Policy, Request, all_answers
from vlprm.prompts import CITATION_TEMPLATES, PREMISES, PREMISES_TEMPLATES
from vlprm.schema import ERROR_KINDS, Problem, Step, StepTree, Verdict

T = TypeVar("T")
NUMBERS = {"type": "array", "items": {"type": "integer", "minimum": 1}}
CITATION_SCHEMA = object_schema({"uses": NUMBERS})
VERDICT_SCHEMA = object_schema(
    {"reason": {"type": "string"}, "verdict": {"enum": [CORRECT, WRONG]}, "error": {"enum": ["none", *ERROR_KINDS]}}
)


async def premises_tree(problem: Problem, tree: StepTree, engine: Policy, config: AskConfig, seed: int) -> Judged:
    """Judge the steps of up to `config.solutions` solutions of a tree, each once."""
    judged = Judged([None] * len(tree.nodes), read_solutions(problem, tree, config.solutions))
    nodes = sorted({node for leaf in judged.solutions for node in tree.path(leaf)})
    verdicts = await all_answers(_of_node(problem, tree, node, engine, config, seed, judged) for node in nodes)
    for node, verdict in zip(nodes, verdicts, strict=True):
        judged.verdicts[node] = verdict
    return judged


async def _of_node(
    problem: Problem, tree: StepTree, node: int, engine: Policy, config: AskConfig, seed: int, judged: Judged
) -> Verdict | None:
    steps = [tree.nodes[n].step for n in tree.path(node)]
    if any(CONTROL_TOKEN.search(step.text) for step in steps):
        judged.failures["control_token"] += 1
        return None

    async def asked(shown: Problem, n: int, name: str, schema: object, read: Callable[[str], T]) -> list[T]:
        request = Request(
            shown, (), n, f"{problem.id}#{name}{node}", seed, config.temperature, config.max_tokens, schema  # type: ignore[arg-type]
        )  # fmt: skip
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
    numbered = "\n".join(f"{n}. {step.text.strip()}" for n, step in enumerate(steps, 1))
    text = CITATION_TEMPLATES[PREMISES].format(question=problem.question, steps=numbered, step=len(steps))
    return dataclasses.replace(problem, question=text, images=(), meta={})


def _shown(problem: Problem, steps: list[Step], cited: tuple[int, ...]) -> Problem:
    """The question about the last step: the premises, and the crops of their zooms and its own."""
    regions = [step.region for step in (*(steps[n - 1] for n in cited), steps[-1]) if step.region is not None]
    crops = [png(crop(open_image(source_of(problem.images, region)), region)) for region in regions]
    premises = "\n".join(f"- {steps[n - 1].text.strip()}" for n in cited) or "- none"
    text = PREMISES_TEMPLATES[PREMISES].format(
        question=problem.question, premises=premises, step=steps[-1].text.strip()
    )
    return dataclasses.replace(problem, question=text, images=(*problem.images, *crops), meta={})
