"""Compare a model's critiques of stored candidates with the ground truth: first errors and their corrections.

python -m eval.critiques --config configs/demo/critiques.yaml
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from typing import Any, NamedTuple

from eval.runs.tracked import all_tracked
from eval.step_scores.config import CritiquesConfig
from vlprm.errors import ProblemError, UserError
from vlprm.metrics import grouped_interval
from vlprm.policy.critique import Critique, sample_critiques
from vlprm.policy.open import folders_of
from vlprm.policy.usage import CountedPolicy
from vlprm.runs.config import dump, run
from vlprm.runs.folder import open_run, write_atomically
from vlprm.runs.pools import RECORDS, stored_pools
from vlprm.schema import Problem, Solution
from vlprm.scoring.open import critique_template_of, open_critic
from vlprm.serving.config import ModelConfig
from vlprm.tasks import load_tasks, problem_by_id, refuse_other_tasks, task_of


def main(config: CritiquesConfig) -> None:
    """Write the measures of the critiques to `results.json` and print them."""
    tasks = load_tasks(config.tasks)
    pools = stored_pools(config.candidates)[config.first : config.first + config.problems]
    refuse_other_tasks((problem_id for problem_id, _ in pools), tasks)
    own, served = folders_of([config.reward_model])
    open_run(config.run, dump(config), 0, [config.candidates / RECORDS, *own], served)
    solutions = [(problem_by_id(i, tasks), solution) for i, pool in pools for solution in pool]
    asked = asyncio.run(_asked(config.reward_model, solutions))
    failures = Counter(one.failure for one in asked if one.failure)
    if failures.total() == len(asked):
        raise UserError(
            f"none of {len(asked)} critiques was written ({dict(failures)}); see to the critic, and run again"
        )
    rows = [
        _row(problem, solution, one.critique, tasks)
        for (problem, solution), one in zip(solutions, asked, strict=True)
        if not one.failure
    ]
    results = {**measured([row for row in rows if row is not None]), "failures": dict(failures)}
    write_atomically(config.run / "results.json", json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


class Asked(NamedTuple):
    """A critique, None where it cannot be read; or why there is none: a failed call says nothing about the critic."""

    critique: Critique | None
    failure: str = ""


async def _asked(model: ModelConfig, solutions: list[tuple[Problem, Solution]]) -> list[Asked]:
    template = critique_template_of(model)
    async with open_critic(model) as engine:

        async def asked(problem: Problem, solution: Solution, key: str) -> Asked:
            counted = CountedPolicy(engine)
            try:
                (critique,) = await sample_critiques(counted, problem, solution.steps, template, key, 0)
            except ProblemError as error:
                return Asked(None, error.cause)
            return Asked(critique, next(iter(counted.failures), ""))

        of_all = (asked(p, s, f"{s.problem_id}/{i}") for i, (p, s) in enumerate(solutions))
        return await all_tracked(of_all, "critiques")


def _row(problem: Problem, solution: Solution, critique: Critique | None, tasks: Any) -> dict[str, Any] | None:
    """Compare one critique with the truth; None if the truth is unknown for a step up to the first error."""
    task = task_of(problem.task, tasks)
    truth = task.verdicts(problem, solution.steps)
    first = next((i for i, v in enumerate(truth) if v is None or not v.correct), None)
    if not truth or (first is not None and truth[first] is None):
        return None
    row = {"problem": problem.id, "wrong": first is not None, "read": critique is not None, "found": False}
    if critique is None:
        return row
    row["found"] = critique.first_wrong == first
    if row["wrong"] and row["found"]:
        assert first is not None
        assert critique.corrected is not None
        verdict = task.verdicts(problem, [*solution.steps[:first], critique.corrected])[-1]
        row["put_right"] = verdict is not None and verdict.correct
    return row


def measured(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares with 95% bootstrap intervals over problems: critiques that could be parsed, wrong solutions whose first
    error is found, correct solutions in which no error is found, and right corrections of found first errors."""
    parts = {
        "read": [(row["problem"], row["read"]) for row in rows],
        "first_error_found": [(row["problem"], row["found"]) for row in rows if row["wrong"]],
        "no_error_found": [(row["problem"], row["found"]) for row in rows if not row["wrong"]],
        "put_right": [(row["problem"], row["put_right"]) for row in rows if "put_right" in row],
    }
    return {name: _share(values) for name, values in parts.items() if values}


def _share(values: list[tuple[str, bool]]) -> dict[str, Any]:
    of_problem: dict[str, list[bool]] = defaultdict(list)
    for problem, value in values:
        of_problem[problem].append(value)
    share = sum(value for _, value in values) / len(values)
    return {"share": share, "ci": list(grouped_interval(list(of_problem.values()))), "of": len(values)}


if __name__ == "__main__":
    run(main, CritiquesConfig)
