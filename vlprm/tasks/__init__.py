"""The image tasks, by name. To add one: a file beside this one and a line below, or a module path `pkg.module`
(a module with a `FAMILY`) wherever a task name is accepted.
"""

from __future__ import annotations

import difflib
import importlib

from vlprm.schema import Problem
from vlprm.tasks import chart, count_grid, figure, fine_print, pattern
from vlprm.tasks.synthetic import SyntheticFamily

TASKS: dict[str, SyntheticFamily] = {
    family.name: family
    for family in (count_grid.FAMILY, pattern.FAMILY, chart.FAMILY, figure.FAMILY, fine_print.FAMILY)
}


def load_task(name: str) -> SyntheticFamily:
    """The task of that name, or the `FAMILY` of the module at that path. ValueError names the nearest known task."""
    if name in TASKS:
        return TASKS[name]
    if "." in name:
        try:
            family = vars(importlib.import_module(name)).get("FAMILY")
        except ModuleNotFoundError as error:
            raise ValueError(f"unknown task {name!r}: {error}; give a task's name or the path of a module") from error
        if not isinstance(family, SyntheticFamily):
            raise ValueError(f"module {name} has no FAMILY (a SyntheticFamily); see vlprm/tasks/count_grid.py")
        TASKS[family.name] = family
        return family
    nearest = difflib.get_close_matches(name, TASKS, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise ValueError(f"unknown task {name!r}; {hint}known: {', '.join(TASKS)}, or the path of a module with a FAMILY")


def problem_by_id(problem_id: str) -> Problem:
    """The item that an id of a synthetic family names, regenerated bit for bit."""
    return load_task(problem_id.partition("@")[0]).problem_by_id(problem_id)
