"""Right solutions to learn from, with the steps that are not learnt, from a dataset, a pool, or the drawn tasks' own
solvers."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from train.policy.config import SftConfig
from vlprm.answers import is_correct
from vlprm.data.dataset import iterate_rows, row_paths
from vlprm.errors import UserError
from vlprm.labels.fusion import called_wrong
from vlprm.runs.pools import RECORDS, stored_pools
from vlprm.schema import Problem, Step
from vlprm.tasks import load_tasks, problem_by_id
from vlprm.tasks.synthetic import truthful
from vlprm.zoom.execute import executed_steps

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Taught:
    """A right solution, and which of its steps are learnt."""

    steps: tuple[Step, ...]
    learnt: tuple[bool, ...]


@dataclass(frozen=True)
class TaughtProblem:
    """A problem with right solutions."""

    problem: Problem
    solutions: tuple[Taught, ...]


def taught_problems(config: SftConfig, counts: Counter[str]) -> list[TaughtProblem]:
    """The problems of the config's source, each with up to `per_problem` different right solutions. Counts what is left
    out. UserError unless there is one source, with a right solution."""
    given = [name for name in ("dataset", "pool", "solved") if getattr(config, name)]
    if len(given) != 1:
        raise UserError(f"give one of dataset, pool and solved to learn from, not {' and '.join(given) or 'none'}")
    sources = {"dataset": _of_dataset, "pool": _of_pool, "solved": _of_solvers}
    found = [replace(one, solutions=_few(one, config, counts)) for one in sources[given[0]](config, counts)]
    counts["problems_without_right_solutions"] += sum(not one.solutions for one in found)
    kept = [one for one in found if one.solutions]
    if not kept:
        raise UserError(
            f"none of {len(found)} problems of {getattr(config, given[0])} has a right solution; use a stronger policy,"
            " or more candidates"
        )
    return kept


def _few(one: TaughtProblem, config: SftConfig, counts: Counter[str]) -> tuple[Taught, ...]:
    different = {tuple(step.text for step in taught.steps): taught for taught in one.solutions}
    few = tuple(different.values())[: config.per_problem]
    counts["solutions_left_out"] += len(one.solutions) - len(few)
    return few


def _of_dataset(config: SftConfig, counts: Counter[str]) -> Iterator[TaughtProblem]:
    """Right solutions of labelled trees; wrong steps are not learnt."""
    assert config.dataset is not None
    for row in iterate_rows(config.dataset):
        paths = row_paths(row)
        right = [path for path in paths if path.right]
        counts["solutions_not_right"] += len(paths) - len(right)
        taught = [Taught(path.steps, tuple(not called_wrong(label) for label in path.labels)) for path in right]
        counts["wrong_steps"] += sum(one.learnt.count(False) for one in taught)
        if paths:
            yield TaughtProblem(paths[0].problem, tuple(taught))


def _of_pool(config: SftConfig, counts: Counter[str]) -> Iterator[TaughtProblem]:
    """Right candidates of a pool."""
    assert config.pool is not None
    tasks = load_tasks(config.tasks)
    for problem_id, solutions in stored_pools(config.pool):
        problem = problem_by_id(problem_id, tasks)
        right = [
            one
            for one in solutions
            if one.answer is not None and is_correct(one.answer, str(problem.answer), problem.answer_type)
        ]
        counts["solutions_not_right"] += len(solutions) - len(right)
        yield TaughtProblem(problem, tuple(Taught(one.steps, (True,) * len(one.steps)) for one in right))


def _of_solvers(config: SftConfig, counts: Counter[str]) -> Iterator[TaughtProblem]:
    """The solutions of the tasks' own solvers, whose zooms show the right regions."""
    families = list(load_tasks(config.tasks).values())
    for number in range(config.solved):
        family = families[number % len(families)]
        problem = family.problem("train", number)
        steps = executed_steps(problem, family.solve(problem.meta["scene"], truthful))
        yield TaughtProblem(problem, (Taught(steps, (True,) * len(steps)),))


def source_files(config: SftConfig) -> Sequence[Path]:
    """The files that the solutions come from."""
    return [path for path in (config.dataset, config.pool and config.pool / RECORDS) if path is not None]
