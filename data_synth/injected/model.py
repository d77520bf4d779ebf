"""Wrong steps by a model: it rewrites a right step so that it has one error of a kind."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace

from data_synth.injected.config import InjectConfig
from data_synth.injected.tree import Injected, chosen
from vlprm.errors import ProblemError
from vlprm.labels.fusion import HIGH_VALUE, seen_value
from vlprm.labels.judge import CONTROL_TOKEN, NoJudgement, object_schema, read_json
from vlprm.policy import Policy, Request, all_answers
from vlprm.prompts import ERRORS, INJECTION_TEMPLATES
from vlprm.schema import ErrorKind, Problem, StepTree
from vlprm.steps import parse_step

SCHEMA = object_schema({"step": {"type": "string"}})


@dataclass(frozen=True)
class _Rewritten:
    step: str


async def rewrites_of_tree(
    problem: Problem, tree: StepTree, engine: Policy, config: InjectConfig, most: int, failures: Counter[str]
) -> list[Injected]:
    """At most `most` steps rewritten by the model, each in the place of a step from which the answer is often
    reached. A rewritten step that cannot be read, or repeats one of the tree, is counted in `failures`."""
    places = [Injected(n, tree.nodes[n].step, _kind(tree, n)) for n in range(len(tree.nodes)) if _is_right(tree, n)]
    wanted = chosen(
        [one for one in places if one.kind in config.kinds], most, random.Random(f"{config.seed} {problem.id}")
    )
    made = await all_answers(_rewritten(problem, tree, one, engine, config, failures) for one in wanted)
    return [one for one in made if one]


def _is_right(tree: StepTree, node: int) -> bool:
    values = (seen_value(tree.nodes[n].label) for n in tree.path(node))
    return tree.nodes[node].step.kind in ERRORS and all((value or 0.0) >= HIGH_VALUE for value in values)


def _kind(tree: StepTree, node: int) -> ErrorKind:
    return "perception" if tree.nodes[node].step.kind == "perception" else "reasoning"


async def _rewritten(
    problem: Problem, tree: StepTree, place: Injected, engine: Policy, config: InjectConfig, failures: Counter[str]
) -> Injected | None:
    path = [tree.nodes[n].step.text.strip() for n in tree.path(place.node)]
    prompt = INJECTION_TEMPLATES["inject@1"].format(
        steps="\n\n".join(path), question=problem.question, error=ERRORS[place.kind]
    )
    if CONTROL_TOKEN.search(prompt):  # a server would obey it
        failures["control_token"] += 1
        return None
    request = Request(
        replace(problem, question=prompt, meta={}), (), 1, f"{problem.id}#inject{place.node}", config.seed,
        config.temperature, config.max_tokens, SCHEMA,
    )  # fmt: skip
    try:
        (answer,) = await engine.sample(request)
        if answer.incomplete:
            raise NoJudgement(answer.incomplete)
        text = read_json(_Rewritten, answer.text).step.strip()
    except (NoJudgement, ProblemError) as error:
        failures[error.cause] += 1
        return None
    written = parse_step(text)
    parent = tree.nodes[place.node].parent
    if text in {node.step.text.strip() for node in tree.nodes if node.parent == parent}:
        failures["repeated"] += 1
    elif not text or written.kind != place.step.kind:
        failures["another_kind"] += 1
    else:
        return replace(place, step=written)
    return None
