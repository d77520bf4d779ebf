"""A scored pool in memory: candidates with their answers, rewards and, on synthetic tasks, the truth of each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlprm.answers import is_correct
from vlprm.records import finished_records, refuse_other_inputs
from vlprm.reward_model import StepScore
from vlprm.schema import Problem, Solution, Verdict, from_json
from vlprm.search.select import Candidate, rewards_of, surprise_of
from vlprm.tasks import Tasks, problem_by_id, task_of
from vlprm.tasks.synthetic import SyntheticFamily


@dataclass(frozen=True)
class Scored:
    """One candidate. `right` is None for a *no result*, a score for a step that could not be scored; `truth` has None
    for a step that does not parse."""

    solution: Solution
    scores: tuple[StepScore | None, ...]
    whole: float | None
    right: bool | None
    truth: tuple[Verdict | None, ...]

    @property
    def fully_right(self) -> bool:
        """The answer is right and so is every step."""
        return self.right is True and all(v is not None and v.correct for v in self.truth)

    @property
    def candidate(self) -> Candidate:
        return Candidate(self.solution.answer, rewards_of(self.scores), self.whole, surprise_of(self.scores))


@dataclass(frozen=True)
class Pool:
    problem: Problem
    candidates: tuple[Scored, ...]

    @property
    def is_mixed(self) -> bool:
        """Some answers are right and some are wrong; a candidate without one is neither."""
        return {True, False} <= {c.right for c in self.candidates}

    @property
    def question_type(self) -> str:
        return f"{self.problem.task}/{self.problem.meta['question_type']}"


def read_pools(run: Path, tasks: Tasks) -> list[Pool]:
    """The pools of a run folder. ValueError where a stage is not finished, where the rewards are not of these very
    candidates by this very reward model, or where one is not a finite number."""
    source = run / "candidates" / "candidates.jsonl"
    records = finished_records(source, "eval.candidates")
    scored = finished_records(run / "rewards" / "rewards.jsonl", "eval.rewards")
    refuse_other_inputs(run / "rewards", [source, run / "prm"])
    scores = {record["key"]: record["candidates"] for record in scored}
    pools = []
    for record in records:
        problem = problem_by_id(record["key"], tasks)
        family = task_of(problem.task, tasks)
        solutions = [from_json(Solution, s) for s in record["solutions"]]
        rewards = scores.get(record["key"], [])
        _refuse_bad_scores(run / "rewards", problem, solutions, rewards)
        pools.append(
            Pool(problem, tuple(_scored(family, problem, s, r) for s, r in zip(solutions, rewards, strict=True)))
        )
    return pools


def _refuse_bad_scores(
    folder: Path, problem: Problem, solutions: Sequence[Solution], rewards: Sequence[dict[str, Any]]
) -> None:
    if [len(s.steps) for s in solutions] != [len(r["steps"]) for r in rewards]:
        raise ValueError(f"{folder} does not have one score for each step of {problem.id}; remove it and score again")
    steps = [value for r in rewards for score in r["steps"] if score for value in score.values()]
    if not all(value is None or math.isfinite(value) for value in (*steps, *(r["whole"] for r in rewards))):
        raise ValueError(
            f"{folder} has rewards of {problem.id} that are not finite numbers; correct them or score again"
        )


def _scored(family: SyntheticFamily, problem: Problem, solution: Solution, scores: dict[str, Any]) -> Scored:
    assert problem.answer is not None
    return Scored(
        solution,
        tuple(s and StepScore(**s) for s in scores["steps"]),
        scores["whole"],
        is_correct(solution.answer, problem.answer, problem.answer_type),
        tuple(family.verdicts(problem, solution.steps)),
    )
