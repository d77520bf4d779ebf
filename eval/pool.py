"""A scored pool: candidates with their answers, rewards and, on synthetic tasks, the truth of each step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vlprm.answers import is_correct
from vlprm.records import placed_records, record_at, refuse_other_inputs, refuse_unfinished
from vlprm.reward_model import StepScore
from vlprm.schema import Problem, Solution, Step, Verdict, from_json
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

    @cached_property
    def candidate(self) -> Candidate:
        """What selectors know of it."""
        return Candidate(self.solution.answer, rewards_of(self.scores), self.whole, surprise_of(self.scores))


@dataclass(frozen=True)
class Pool:
    """The candidates of one problem, whose images are not drawn."""

    problem: Problem
    candidates: tuple[Scored, ...]

    @property
    def is_mixed(self) -> bool:
        """Some answers are right and some are wrong; a candidate without one is neither."""
        return {True, False} <= {c.right for c in self.candidates}

    @property
    def question_type(self) -> str:
        return f"{self.problem.task}/{self.problem.meta['question_type']}"


class PoolRun:
    """The pools of a run folder, in the order of its candidates. Only their places are in memory: a pool is read when
    it is asked for.

    ValueError where a stage is not finished, where the rewards are not of these very candidates by this very reward
    model, or where one is not a finite number.
    """

    def __init__(self, run: Path, tasks: Tasks) -> None:
        self._candidates = run / "candidates" / "candidates.jsonl"
        self._rewards = run / "rewards" / "rewards.jsonl"
        self._tasks = tasks
        refuse_unfinished(self._candidates, "eval.candidates")
        refuse_unfinished(self._rewards, "eval.rewards")
        refuse_other_inputs(run / "rewards", [self._candidates, run / "prm"])
        self._scored_at = {record["key"]: place for place, record in placed_records(self._rewards)}
        self._places = [place for place, _ in placed_records(self._candidates)]
        if not self._places:
            raise ValueError(
                f"{self._candidates} has no records; run `python -m eval.candidates` for at least one problem"
            )

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Pool]:
        return map(self.pool, range(len(self)))

    def pool(self, at: int) -> Pool:
        record = record_at(self._candidates, self._places[at])
        problem = problem_by_id(record["key"], self._tasks, drawn=False)
        family = task_of(problem.task, self._tasks)
        solutions = [from_json(Solution, s) for s in record["solutions"]]
        place = self._scored_at.get(record["key"])
        rewards = [] if place is None else record_at(self._rewards, place)["candidates"]
        _refuse_bad_scores(self._rewards.parent, problem, solutions, rewards)
        truth = _truth(family, problem, solutions)
        return Pool(problem, tuple(map(_scored, [problem] * len(solutions), solutions, rewards, truth)))

    def images(self, at: int) -> tuple[bytes, ...]:
        """The images of a pool's problem, drawn again."""
        return problem_by_id(record_at(self._candidates, self._places[at])["key"], self._tasks).images


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


def _truth(
    family: SyntheticFamily, problem: Problem, solutions: Sequence[Solution]
) -> list[tuple[Verdict | None, ...]]:
    """The truth of each solution's steps. A pool holds many solutions twice: each is read once."""
    known: dict[tuple[Step, ...], tuple[Verdict | None, ...]] = {}
    for solution in solutions:
        if solution.steps not in known:
            known[solution.steps] = tuple(family.verdicts(problem, solution.steps))
    return [known[solution.steps] for solution in solutions]


def _scored(problem: Problem, solution: Solution, scores: dict[str, Any], truth: tuple[Verdict | None, ...]) -> Scored:
    assert problem.answer is not None
    return Scored(
        solution,
        tuple(s and StepScore(**s) for s in scores["steps"]),
        scores["whole"],
        is_correct(solution.answer, problem.answer, problem.answer_type),
        truth,
    )
