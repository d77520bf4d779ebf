"""The problems of a run: their ids in order, each one's place, and which of them a shard has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vlprm.data.problem_file import ProblemFile
from vlprm.errors import UserError
from vlprm.schema import Problem
from vlprm.tasks import Tasks, problem_by_id
from vlprm.tasks.synthetic import item_ids

FIRST_ITEM = 900_000  # far behind the items that the built-in models were taught with


@dataclass(frozen=True)
class Source:
    """`problem` makes a problem from its id, whenever it is needed: no run holds all its images in memory."""

    ids: Sequence[str]
    problem: Callable[[str], Problem]

    @cached_property
    def places(self) -> dict[str, int]:
        return {problem_id: at for at, problem_id in enumerate(self.ids)}

    def units(self, size: int, shard: str) -> list[list[str]]:
        """The units of `size` problems of which shard "i/n" has every n-th, from the i-th on. UserError if it has
        none."""
        i, n = parse_shard(shard)
        units = [list(self.ids[start : start + size]) for start in range(0, len(self.ids), size)]
        if i >= len(units):
            raise UserError(
                f"shard {shard} of {len(units)} units is empty; use at most {len(units)} shards, or a smaller unit"
            )
        return units[i::n]


def drawn_problems(tasks: Tasks, split: str, problems: int) -> Source:
    """So many problems of the synthetic tasks, which take turns."""
    ids = item_ids(list(tasks.values()), split, problems, FIRST_ITEM)
    return Source(ids, lambda problem_id: problem_by_id(problem_id, tasks))


def problems_of_file(path: Path) -> Source:
    """All problems of a file, in its order."""
    problems = ProblemFile(path)
    return Source(problems.ids, problems.problem)


def parse_shard(shard: str) -> tuple[int, int]:
    i, _, n = shard.partition("/")
    if not (i.isdecimal() and n.isdecimal() and int(i) < int(n)):
        raise UserError(f"shard {shard!r} is not i/n with i from 0 to n-1, such as 0/4")
    return int(i), int(n)
