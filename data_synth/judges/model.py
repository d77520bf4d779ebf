"""Judge search trees with a vision-language model: choose solutions, sample judgements, take majorities."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from data_synth.judges.config import AskConfig
from data_synth.search.tree import read_solutions
from vlprm.errors import ProblemError
from vlprm.labels.judge import CONTROL_TOKEN, NoJudgement, judge_problem, judge_schema, majority, parse_judgement
from vlprm.policy import UNANSWERED, Continuation, Policy, Request, all_answers
from vlprm.schema import Problem, StepTree, Verdict

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


async def judge_tree(problem: Problem, tree: StepTree, engine: Policy, config: AskConfig, seed: int) -> Judged:
    """Judge up to `config.solutions` solutions of a tree. The verdict on a shared step is the majority over all of its
    judgements."""
    judged = Judged([None] * len(tree.nodes), read_solutions(problem, tree, config.solutions))
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
    problem: Problem, tree: StepTree, path: list[int], engine: Policy, config: AskConfig, seed: int, judged: Judged
) -> list[list[Verdict]]:
    """Up to `config.samples` readable judgements of one solution."""
    steps = [tree.nodes[n].step for n in path]
    if any(CONTROL_TOKEN.search(step.text) for step in steps):
        # A server would read it as a control token, and the policy could then close the judge's turn.
        judged.failures["control_token"] += 1
        return []
    read: list[list[Verdict]] = []
    try:
        asked = Request(
            judge_problem(problem, steps, config.template), (), config.samples, f"{problem.id}#judge{path[-1]}", seed,
            config.temperature, config.max_tokens, judge_schema(len(steps), config.template),
        )  # fmt: skip
        for again in range(config.tries):
            key = f"{asked.key}.{again}" if again else asked.key
            answers = await engine.sample(dataclasses.replace(asked, n=config.samples - len(read), key=key))
            judged.requests += 1
            judged.tokens += sum(answer.tokens for answer in answers)
            read += _readable(answers, len(steps), config.template, judged)
            if len(read) == config.samples:
                break
        else:
            judged.unanswered += any(answer.failure in UNANSWERED for answer in answers)
    except ProblemError as error:
        judged.failures[error.failure] += 1
        judged.example = judged.example or f"{error.failure}: {error}"
    return read


def _readable(answers: Sequence[Continuation], steps: int, template: str, judged: Judged) -> list[list[Verdict]]:
    read = []
    for answer in answers:
        try:
            read.append(_read(answer, steps, template))
        except NoJudgement as failure:
            judged.failures[failure.cause] += 1
            text = " ".join(answer.text.split())[:EXAMPLE]  # a weak judge fills its answer with white space
            said = ": ".join(filter(None, (failure.cause, failure.said, text)))
            judged.example = judged.example or said
    return read


def _read(answer: Continuation, steps: int, template: str) -> list[Verdict]:
    if answer.failure:
        raise NoJudgement(answer.failure)
    if not answer.ended:
        raise NoJudgement("length")
    return parse_judgement(answer.text, steps, template)
