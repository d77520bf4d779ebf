"""Several datasets as one, and how many passes over each make an epoch."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vlprm.data.importing import DatasetRow
from vlprm.data.trl_format import TrainingRows
from vlprm.errors import UserError


class JoinedRows:
    """The rows of several datasets, one after the other; see `TrainingRows`."""

    def __init__(self, paths: Sequence[Path]) -> None:
        if len({path.resolve() for path in paths}) < len(paths):
            raise UserError("also names a dataset that is given already; give it a weight once")
        self._parts = [TrainingRows(path) for path in paths]
        self.firsts = list(itertools.accumulate((len(part) for part in self._parts), initial=0))
        self.groups = [group for part in self._parts for group in part.groups]

    def __len__(self) -> int:
        return self.firsts[-1]

    def __getitem__(self, number: int) -> DatasetRow:
        part = int(self.part_of(np.array([number]))[0])
        return self._parts[part][number - self.firsts[part]]

    def problems(self, group: int) -> list[tuple[str, tuple[bytes, ...]]]:
        """The question and the images of each row of a group."""
        for part in self._parts:
            if group < len(part.groups):
                return part.problems(group)
            group -= len(part.groups)
        raise IndexError(group)

    def part_of(self, rows: np.ndarray) -> np.ndarray:
        """The dataset of each row, by its index."""
        return np.searchsorted(self.firsts, rows, side="right") - 1

    def name(self, number: int) -> str:
        """The file of a row, and its number there, from 1 on."""
        part = int(self.part_of(np.array([number]))[0])
        return f"row {number - self.firsts[part] + 1} of {self._parts[part].path}"


def drawn(parts: np.ndarray, weights: Sequence[float], seed: int) -> np.ndarray:
    """Indices of the examples of one epoch, each as often as the weight of its dataset says. For a fraction of a
    dataset, examples are drawn anew for each seed."""
    rng = random.Random(f"mixture {seed}")
    taken = []
    for part, weight in enumerate(weights):
        own = np.flatnonzero(parts == part)
        more = rng.sample(range(len(own)), round((weight - int(weight)) * len(own)))
        taken += [own] * int(weight) + [own[np.sort(np.array(more, dtype=np.int64))]]
    return np.concatenate(taken)
