"""Judge search trees with a vision-language model: choose solutions, sample judgements, take majorities."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from data_synth.judges.config import SamplingConfig
from data_synth.search.tree import read_solutions
from vlprm.errors import ProblemError
from vlprm.labels.judge import CONTROL_TOKEN, NoJudgement, judge_problem, judge_schema, majority, parse_judgement
from vlprm.policy import OUTAGES, Policy, Request, all_answers
from vlprm.schema import Problem, StepTree, Verdict

T = TypeVar("T")
EXAMPLE = 200  # characters shown of an unreadable answer


@dataclass
class Judged:
    """Verdicts on a tree's nodes (None: no result, or not asked), leaves of the judged `solutions` in order, and cost.
    `failures` counts judgements without result by cause, `example` shows the first; `unanswered` counts solutions for
    which servers failed."""

    verdicts: list[Verdict | None]
    solutions: list[int]
    failures: Counter[str] = field(default_factory=Counter)
    example: str = ""
    unanswered: int = 0
    requests: int = 0
    tokens: int = 0

    def failed(self, cause: str, *said: str) -> list[Any]:
        """Count a judgement without result, and return none."""
        self.failures[cause] += 1
        self.example = self.example or ": ".join(filter(None, (cause, *said)))
        return []


def to_judge(problem: Problem, tree: StepTree, config: SamplingConfig) -> Judged:
    """Up to `config.solutions` solutions of a tree, without verdicts yet."""
    return Judged([None] * len(tree.nodes), read_solutions(problem, tree, config.solutions))


async def judge_each_step(
    tree: StepTree, judged: Judged, verdict: Callable[[int], Awaitable[Verdict | None]]
) -> Judged:
    """Ask for the verdict on each node of the judged solutions, once for a shared one."""
    nodes = sorted({node for leaf in judged.solutions for node in tree.path(leaf)})
    for node, said in zip(nodes, await all_answers(map(verdict, nodes)), strict=True):
        judged.verdicts[node] = said
    return judged


async def judge_tree(problem: Problem, tree: StepTree, engine: Policy, config: SamplingConfig, seed: int) -> Judged:
    """Judge up to `config.solutions` solutions of a tree. The verdict on a shared step is the majority over all of its
    judgements."""
    judged = to_judge(problem, tree, config)
    paths = [tree.path(leaf) for leaf in judged.solutions]
    asked = (_judgements(problem, tree, path, engine, config, seed, judged) for path in paths)
    votes: dict[int, list[Verdict]] = {}
    for path, judgements in zip(paths, await all_answers(asked), strict=True):
        for verdicts in judgements:
            for node, verdict in zip(path, verdicts, strict=True):
                votes.setdefault(node, []).append(verdict)
    for node, said in votes.items():
        judged.verdicts[node] = majority(said)
    return judged


async def _judgements(
    problem: Problem, tree: StepTree, path: list[int], engine: Policy, config: SamplingConfig, seed: int, judged: Judged
) -> list[list[Verdict]]:
    """Up to `config.samples` readable judgements of one solution."""
    steps = [tree.nodes[n].step for n in path]
    if any(CONTROL_TOKEN.search(step.text) for step in steps):
        # A server would read it as a control token, and the policy could then close the judge's turn.
        return judged.failed("control_token")
    try:
        shown = judge_problem(problem, steps, config.template)
    except ProblemError as error:
        return judged.failed(error.cause, str(error))
    asked = Request(
        shown, (), config.samples, f"{problem.id}#judge{path[-1]}", seed,
        config.temperature, config.max_tokens, judge_schema(len(steps), config.template),
    )  # fmt: skip
    return await read_answers(
        asked, engine, config.tries, judged, lambda text: parse_judgement(text, len(steps), config.template)
    )


async def read_answers(asked: Request, engine: Policy, tries: int, judged: Judged, read: Callable[[str], T]) -> list[T]:
    """Up to `asked.n` readable answers, in up to `tries` calls. Those that cannot be read are counted in `judged`."""
    made: list[T] = []
    for again in range(tries):
        key = f"{asked.key}.{again}" if again else asked.key
        try:
            answers = await engine.sample(dataclasses.replace(asked, n=asked.n - len(made), key=key))
        except ProblemError as error:
            return made + judged.failed(error.cause, str(error))
        judged.requests += 1
        judged.tokens += sum(answer.tokens for answer in answers)
        for answer in answers:
            try:
                if answer.incomplete:
                    raise NoJudgement(answer.incomplete)
                made.append(read(answer.text))
            except NoJudgement as failure:
                text = " ".join(answer.text.split())[:EXAMPLE]  # a weak judge fills its answer with white space
                judged.failed(failure.cause, failure.said, text)
        if len(made) == asked.n:
            return made
    judged.unanswered += any(answer.failure in OUTAGES for answer in answers)
    return made
