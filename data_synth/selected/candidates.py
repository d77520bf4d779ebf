"""The solutions of a pool or a dataset, with what ranks them: rewards of steps, surprise, the answer, the truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_synth.selected.config import SelectConfig
from vlprm.data.dataset import iterate_rows, row_paths
from vlprm.errors import UserError
from vlprm.labels.fusion import called_wrong, rule_calls_wrong
from vlprm.runs.pools import RECORDS, StoredCandidate, stored_candidates
from vlprm.schema import Problem, Step, StepScore
from vlprm.search.select import surprise_of
from vlprm.tasks import Tasks, problem_by_id

Row = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A solution that may be selected.

    `at`: index of its row or pool, and `place` its index there. `rewards`: the reward of each step, None where it has
    none. `correct`: which of the steps with a reward it calls correct. `surprise`: nats of the least likely token.
    `answered`: whether it has an answer; an injected wrong step has none. `right`: whether the answer is right (None:
    no result, or no known answer). `true`: whether answer and all steps are right (None: not a drawn problem).
    """

    problem_id: str
    at: int
    place: int
    texts: tuple[str, ...]
    rewards: tuple[float | None, ...]
    correct: tuple[bool, ...]
    surprise: float | None
    answered: bool
    right: bool | None
    true: bool | None


@dataclass(frozen=True)
class Group:
    """A problem with its candidates, and the steps and the answer of each."""

    problem: Problem
    candidates: tuple[Candidate, ...]
    solutions: tuple[tuple[Step, ...], ...]
    answers: tuple[str | None, ...]
    row: Row | None = None  # a row of a dataset


def source_file(config: SelectConfig) -> Path:
    """The file that the solutions come from. UserError unless there is one source."""
    if (config.pool is None) == (config.dataset is None):
        raise UserError("give a pool or a dataset to select from, and not both")
    return config.dataset if config.dataset is not None else config.pool / RECORDS  # type: ignore[operator]


def groups(config: SelectConfig, tasks: Tasks, drawn: bool = False) -> Iterator[Group]:
    """The problems of the config's source, in order. The problems of a pool have images only if `drawn`."""
    if config.dataset is not None:
        yield from (_of_row(at, row, tasks) for at, row in enumerate(iterate_rows(config.dataset)))
    else:
        assert config.pool is not None
        for at, (problem_id, pool) in enumerate(stored_candidates(config.pool)):
            yield _of_pool(at, problem_by_id(problem_id, tasks, drawn), pool, tasks)


def _of_row(at: int, row: Row, tasks: Tasks) -> Group:
    paths = row_paths(row)
    if not paths:
        raise UserError(f"row {row['id']} has no complete solution; make the dataset with data_synth.label")
    found = []
    answers = tuple(leaf["answer"] for leaf in row["leaves"])
    for place, (path, answer) in enumerate(zip(paths, answers, strict=True)):
        rewards = tuple(label.target for label in path.labels)
        correct = tuple(not called_wrong(label) for label in path.labels if label.target is not None)
        found.append(_candidate(path.problem, at, place, path.steps, answer, path.right, tasks, rewards, correct))
    return Group(paths[0].problem, tuple(found), tuple(path.steps for path in paths), answers, row)


def _of_pool(at: int, problem: Problem, pool: Sequence[StoredCandidate], tasks: Tasks) -> Group:
    solutions = [one.solution for one in pool]
    found = tuple(
        rescored(_candidate(problem, at, place, one.solution.steps, one.solution.answer, one.right, tasks), one.scores)
        for place, one in enumerate(pool)
    )
    return Group(problem, found, tuple(one.steps for one in solutions), tuple(one.answer for one in solutions))


def _candidate(
    problem: Problem,
    at: int,
    place: int,
    steps: Sequence[Step],
    answer: str | None,
    right: bool | None,
    tasks: Tasks,
    rewards: tuple[float | None, ...] = (),
    correct: tuple[bool, ...] = (),
) -> Candidate:
    texts = tuple(step.text for step in steps)
    true = _true(problem, steps, right, tasks)
    return Candidate(problem.id, at, place, texts, rewards, correct, None, answer is not None, right, true)


def rescored(candidate: Candidate, scores: Sequence[StepScore | None]) -> Candidate:
    """The candidate with the rewards of these scores."""
    rewards = tuple(None if score is None else score.correct for score in scores)
    correct = tuple(not rule_calls_wrong("", reward) for reward in rewards if reward is not None)
    return dataclasses.replace(candidate, rewards=rewards, correct=correct, surprise=surprise_of(scores))


def _true(problem: Problem, steps: Sequence[Step], right: bool | None, tasks: Tasks) -> bool | None:
    if problem.task not in tasks or "scene" not in problem.meta:
        return None
    return right is True and all(v is not None and v.correct for v in tasks[problem.task].verdicts(problem, steps))
