"""The drawn image tasks by name. To add a task, write a file in this package and add a line below, or give a module
path `pkg.module` (a module with a `FAMILY`) instead of a task name.

A module is imported only if the user names it. Names from files (an item's id, a dataset's task) are looked up among
the tasks that the user gave, so that no data file decides what code runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from vlprm.errors import UserError
from vlprm.runs.plugins import known_or_in_module
from vlprm.schema import Problem, Region
from vlprm.tasks import chart, count_grid, figure, fine_print, pattern
from vlprm.tasks.scene import COLOURS, SHAPES
from vlprm.tasks.synthetic import SyntheticFamily

Tasks = Mapping[str, SyntheticFamily]

TASKS: dict[str, SyntheticFamily] = {
    family.name: family
    for family in (count_grid.FAMILY, pattern.FAMILY, chart.FAMILY, figure.FAMILY, fine_print.FAMILY)
}

# What steps of these tasks name: things that the image shows, and results of comparisons.
NAMES = frozenset((*COLOURS, *SHAPES, *pattern.SIZES, *fine_print.PRINTS, "none", "match", "differ", "yes", "no"))


def load_task(name: str) -> SyntheticFamily:
    """The task of that name, or the `FAMILY` of the module at that path. Names come from the command line, never from
    data. UserError suggests the nearest task, or names the built-in task whose name a module's family repeats."""
    return known_or_in_module(name, TASKS, "FAMILY", "task", "docs/examples/dominoes.py")


def load_tasks(names: Sequence[str]) -> Tasks:
    """The tasks that a user names, by their families' names. UserError if there are none, or two with the same
    name."""
    families = [load_task(name) for name in names]
    tasks = {family.name: family for family in families}
    if not tasks:
        raise UserError(f"no task is given; known: {', '.join(TASKS)}, or the path of a module with a FAMILY")
    if len(tasks) < len(families):
        raise UserError(f"two of the tasks {', '.join(names)} have the same name; remove one or rename its family")
    return tasks


def known_regions(problem: Problem, tasks: Tasks) -> Mapping[str, Region]:
    """The regions that a drawn problem of these tasks asks about, by name; empty for other problems."""
    family, scene = tasks.get(problem.task), problem.meta.get("scene")
    return family.regions(scene) if family and scene else {}


def example_problem() -> Problem:
    """A small example problem with its image and ground truth: count the cells of one kind in a grid."""
    return count_grid.FAMILY.problem("test", 0)


def task_of(name: str, tasks: Tasks) -> SyntheticFamily:
    """The task that a file names, among those that the user gave. Imports nothing. UserError if it is not among
    them."""
    if name not in tasks:
        raise UserError(
            f"items belong to the task {name!r}, but --tasks gives {', '.join(tasks)}; add the task, or the path of "
            "its module"
        )
    return tasks[name]


def problem_by_id(problem_id: str, tasks: Tasks, drawn: bool = True) -> Problem:
    """The item with this id, regenerated bit for bit. `drawn=False` skips rendering: no images, faster."""
    return task_of(_task_name(problem_id), tasks).problem_by_id(problem_id, drawn)


def refuse_other_tasks(problem_ids: Iterable[str], tasks: Tasks) -> None:
    """UserError if an item belongs to none of the tasks. Call it before a run folder is opened."""
    for name in {_task_name(problem_id): None for problem_id in problem_ids}:
        task_of(name, tasks)


def _task_name(problem_id: str) -> str:
    return problem_id.partition("@")[0]
