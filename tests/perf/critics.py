"""Critics with the verdict first and last, read as shares of critiques and as probabilities of the verdict.

    make demo && python -m tests.perf.critics [PROBLEMS]

On stored candidates of the demo, after those on which the critic was chosen. Steps up to the first error of a solution
count, whose truth the family knows. Each row is a scorer: the AUROC of its rewards, the share of first errors that
are found (the first reward below one half), of right solutions that pass, and tokens per solution. Greedy critiques
also say how many found errors they put right. Intervals are 95% bootstraps over problems. The demo's critics have
reasons of one line; what a chain of thought before the verdict brings shows only with a larger model.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tests.perf.datasets import DEMO, critic
from tests.perf.results import write_result
from vlprm.metrics import auroc, grouped_interval
from vlprm.model.reward_loading import load_reward_model
from vlprm.policy.critique import sample_critiques
from vlprm.policy.local import LocalPolicy
from vlprm.runs.pools import stored_pools
from vlprm.schema import Problem, Solution, StepScore
from vlprm.scoring.critiques import CritiqueScorer
from vlprm.tasks import TASKS, problem_by_id, task_of

RECIPES = {"first": "critic", "last": "critic_verdict_last"}
CANDIDATES = DEMO / "eval/records.jsonl"
SKIPPED, PROBLEMS, EACH = 50, 40, 4  # the demo's critic was chosen on the first 50 problems
SAMPLES = (1, 4, 8)
DRAWS = 1000
Decision = Literal["share", "probability"]


@dataclass(frozen=True)
class Case:
    """A candidate, and the index of its first wrong step (None: all steps are right)."""

    problem: Problem
    solution: Solution
    first_wrong: int | None


def main() -> None:
    problems = int(sys.argv[1]) if len(sys.argv) > 1 else PROBLEMS
    cases = _cases(problems)
    print(
        f"{len(cases)} solutions of {problems} problems, {sum(c.first_wrong is not None for c in cases)} with an error"
    )
    rows = []
    for verdict, recipe in RECIPES.items():
        engine = LocalPolicy(load_reward_model(critic(recipe)))
        rows.append({"verdict": verdict, "decision": "greedy", **asyncio.run(_greedy(engine, cases))})
        print(rows[-1])
        for decision, samples in _ways(verdict):
            rows.append(
                {"verdict": verdict, "decision": decision, "k": samples, **_scored(engine, cases, decision, samples)}
            )
            print(rows[-1])
    of = {(row["verdict"], row["decision"], row.get("k")): row for row in rows}
    first, share = of["first", "probability", 1], of["first", "share", 4]
    last, share_last = of["last", "probability", 1], of["last", "share", 4]
    write_result("critics", rows, {
        "auroc_probability_minus_share_k4": (first["auroc"] - share["auroc"], 0.0),
        "tokens_probability_over_share_k4": (first["tokens"] / share["tokens"], 0.25),
        "auroc_probability_k1_minus_share_k4_verdict_last": (last["auroc"] - share_last["auroc"], 0.0),
        "auroc_verdict_last_minus_first": (last["auroc"] - first["auroc"], 0.0),
    })  # fmt: skip


def _ways(verdict: str) -> list[tuple[Decision, int]]:
    probabilities: Sequence[int] = (1,) if verdict == "first" else SAMPLES  # more samples change nothing
    return [*(("share", k) for k in SAMPLES), *(("probability", k) for k in probabilities)]


def _cases(problems: int) -> list[Case]:
    """Candidates whose truth is known up to the first error."""
    found = []
    for problem_id, pool in stored_pools(CANDIDATES.parent)[SKIPPED : SKIPPED + problems]:
        problem = problem_by_id(problem_id, TASKS)
        for solution in pool[:EACH]:
            truth = task_of(problem.task, TASKS).verdicts(problem, solution.steps)
            first = next((k for k, v in enumerate(truth) if v is None or not v.correct), None)
            if truth and (first is None or truth[first] is not None):
                found.append(Case(problem, solution, first))
    return found


async def _greedy(engine: LocalPolicy, cases: Sequence[Case]) -> dict[str, Any]:
    """What `eval.critiques` measures of one greedy critique."""
    template = engine.checkpoint.config.critiques
    asked = (
        sample_critiques(engine, case.problem, case.solution.steps, template, f"{case.problem.id}/{k}", 0)
        for k, case in enumerate(cases)
    )
    found = [critique for (critique,) in await asyncio.gather(*asked)]
    right: list[tuple[Case, float]] = []
    for case, critique in zip(cases, found, strict=True):
        if case.first_wrong is not None and critique and critique.first_wrong == case.first_wrong:
            assert critique.corrected is not None
            steps = [*case.solution.steps[: case.first_wrong], critique.corrected]
            verdict = task_of(case.problem.task, TASKS).verdicts(case.problem, steps)[-1]
            right.append((case, float(verdict is not None and verdict.correct)))
    called = [(case, critique.first_wrong if critique else -1) for case, critique in zip(cases, found, strict=True)]
    read = [(case, float(critique is not None)) for case, critique in zip(cases, found, strict=True)]
    return {**_found(called), "put_right": _share(right), "read": _share(read)}


def _scored(engine: LocalPolicy, cases: Sequence[Case], decision: Decision, samples: int) -> dict[str, Any]:
    scorer = CritiqueScorer(engine, engine.checkpoint.config.critiques, samples, decision)

    async def score() -> list[tuple[list[StepScore | None], int]]:
        found = await asyncio.gather(*(scorer.score(case.problem, [case.solution.steps]) for case in cases))
        return [(one.steps[0], one.tokens) for one in found]

    scored = asyncio.run(score())
    rewards = [[score and score.correct for score in scores] for scores, _ in scored]
    called = [(case, _first_below(of_case)) for case, of_case in zip(cases, rewards, strict=True)]
    steps = [
        (case.problem.id, reward, k != case.first_wrong)
        for case, of_case in zip(cases, rewards, strict=True)
        for k, reward in enumerate(of_case[: len(of_case) if case.first_wrong is None else case.first_wrong + 1])
        if reward is not None
    ]
    tokens = sum(tokens for _, tokens in scored) / len(cases)
    area, interval = _area(steps)
    return {"auroc": area, "auroc_ci": interval, **_found(called), "tokens": tokens}


def _first_below(rewards: Sequence[float | None]) -> int | None:
    """The first step whose reward is below one half; -1 without any reward."""
    if all(reward is None for reward in rewards):
        return -1
    return next((k for k, reward in enumerate(rewards) if reward is not None and reward < 0.5), None)


def _found(called: Sequence[tuple[Case, int | None]]) -> dict[str, Any]:
    hits = [(case, float(said == case.first_wrong)) for case, said in called]
    return {
        "found": _share([(case, hit) for case, hit in hits if case.first_wrong is not None]),
        "passed": _share([(case, hit) for case, hit in hits if case.first_wrong is None]),
    }


def _share(values: Sequence[tuple[Case, float]]) -> dict[str, Any]:
    groups: dict[str, list[float]] = defaultdict(list)
    for case, value in values:
        groups[case.problem.id].append(value)
    if not values:
        return {"of": 0}
    mean = sum(value for _, value in values) / len(values)
    return {"share": mean, "ci": list(grouped_interval(list(groups.values()))), "of": len(values)}


def _area(steps: Sequence[tuple[str, float, bool]]) -> tuple[float, list[float]]:
    """The AUROC of steps (problem, reward, right), and its interval."""
    groups: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for problem, reward, right in steps:
        groups[problem].append((reward, right))
    listed, rng = list(groups.values()), np.random.default_rng(0)

    def area(of: Sequence[list[tuple[float, bool]]]) -> float:
        rewards, right = zip(*(step for group in of for step in group), strict=True)
        return auroc(rewards, right)

    draws = [area([listed[i] for i in rng.integers(len(listed), size=len(listed))]) for _ in range(DRAWS)]
    known = [value for value in draws if not math.isnan(value)]
    return area(listed), [float(q) for q in np.quantile(known, [0.025, 0.975])]


if __name__ == "__main__":
    main()
