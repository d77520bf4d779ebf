"""Read the rows of a dataset file by number, a few row groups in memory.

A reader that takes rows of neighbouring groups reads each group once. A file is opened by each process that reads it,
because a forked process would share its parent's position in the file.
"""

from __future__ import annotations

import bisect
import itertools
import json
import os
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from pyarrow.parquet import ParquetFile

from vlprm.data.dataset import ROW_GROUP, open_parquet
from vlprm.errors import UserError

KEPT_BYTES = 64 << 20  # row groups that a process keeps; the last one is kept whatever its size


class RowFile(Protocol):
    """A file with rows. `groups` lists the number of rows and of bytes of each row group."""

    groups: Sequence[tuple[int, int]]
    columns: Sequence[str]

    def row(self, number: int) -> Any:
        """The row at this index."""
        ...


class TableFile:
    """The rows of a parquet file that the command `maker` makes. UserError as of `open_parquet`."""

    def __init__(self, path: Path, maker: str = "data_synth.label") -> None:
        self.path, self.maker = path, maker
        with self._open() as file:
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            self.columns: Sequence[str] = file.schema_arrow.names
        self.groups: Sequence[tuple[int, int]] = [(group.num_rows, group.total_byte_size) for group in groups]
        self._firsts = list(itertools.accumulate((rows for rows, _ in self.groups), initial=0))
        self._read: tuple[int, ParquetFile | None] = (0, None)  # the process that opened the file
        self._kept: OrderedDict[int, pa.Table] = OrderedDict()

    def row(self, number: int) -> dict[str, Any]:
        """The row at this index."""
        group = bisect.bisect_right(self._firsts, number) - 1
        (row,) = self._group(group).slice(number - self._firsts[group], 1).to_pylist()
        return dict(row)

    def part(self, group: int, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Some columns of the rows of a group."""
        return list(self._opened().read_row_group(group, columns=[*columns], use_threads=False).to_pylist())

    def _group(self, group: int) -> pa.Table:
        if group not in self._kept:
            self._kept[group] = self._opened().read_row_group(group, use_threads=False)
        self._kept.move_to_end(group)
        while len(self._kept) > 1 and sum(self.groups[kept][1] for kept in self._kept) > KEPT_BYTES:
            self._kept.popitem(last=False)
        return self._kept[group]

    def _opened(self) -> ParquetFile:
        process, file = self._read
        if file is None or process != os.getpid():
            file = self._open()
            self._read = os.getpid(), file
        return file

    def _open(self) -> ParquetFile:
        return open_parquet(self.path, self.maker)


class LineFile:
    """The records of a JSON Lines file, without blank lines. UserError names the file if it is missing, and the line if
    it is not JSON."""

    columns: Sequence[str] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise UserError(f"no dataset {path}; give a file with TRL's prompt, completions and labels")
        self._numbers, self._offsets, sizes = array("q"), array("q"), array("q")  # one entry per line that is not blank
        at = 0
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    for values, value in ((self._numbers, number), (self._offsets, at), (sizes, len(line))):
                        values.append(value)
                at += len(line)
        starts = range(0, len(sizes), ROW_GROUP)
        self.groups: Sequence[tuple[int, int]] = [
            (len(sizes[i : i + ROW_GROUP]), sum(sizes[i : i + ROW_GROUP])) for i in starts
        ]

    def row(self, number: int) -> Any:
        """The record at this index."""
        with self.path.open("rb") as file:
            file.seek(self._offsets[number])
            try:
                return json.loads(file.readline())
            except (ValueError, RecursionError) as error:
                raise UserError(f"{self.path}, line {self._numbers[number]} is not JSON; correct it") from error
