"""The problems of a run: their ids in order, and the units of each shard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vlprm.data.problem_file import ProblemFile
from vlprm.errors import UserError
from vlprm.runs.shards import shard_of
from vlprm.schema import Problem
from vlprm.tasks import Tasks, problem_by_id
from vlprm.tasks.synthetic import item_ids

FIRST_ITEM = 900_000  # far beyond the items that the built-in models were trained on


@dataclass(frozen=True)
class Source:
    """Problem ids in order. `problem` makes a problem from its id on demand: a run never holds all images in memory."""

    ids: Sequence[str]
    problem: Callable[[str], Problem]

    @cached_property
    def places(self) -> dict[str, int]:
        """The index of each problem id in the run."""
        return {problem_id: at for at, problem_id in enumerate(self.ids)}

    def units(self, size: int, shard: str) -> list[list[str]]:
        """Units of `size` problem ids in shard "i/n": every n-th unit from the i-th on. UserError if there is none."""
        i, n = shard_of(shard)
        units = [list(self.ids[start : start + size]) for start in range(0, len(self.ids), size)]
        if i >= len(units):
            raise UserError(
                f"shard {shard} is empty; for {len(units)} units use at most {len(units)} shards, or set a smaller unit"
            )
        return units[i::n]


def drawn_problems(tasks: Tasks, split: str, problems: int) -> Source:
    """`problems` problems of the synthetic tasks, in round-robin order."""
    ids = item_ids(list(tasks.values()), split, problems, FIRST_ITEM)
    return Source(ids, lambda problem_id: problem_by_id(problem_id, tasks))


def problems_of_file(path: Path) -> Source:
    """All problems of a file, in file order."""
    problems = ProblemFile(path)
    return Source(problems.ids, problems.problem)
