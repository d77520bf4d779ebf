"""The index of a dataset: for each problem its rows, the lengths of its training rows, and counts.

It is made once, by all cores, from the texts and the sizes of images, and stored in the run folder, so that planning
batches reads no image and a resumed run reads no row. A problem takes about 200 bytes in memory.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from train.reward.config import LossConfig, PrmConfig, RowsConfig
from train.reward.data import Example, class_counts, examples_of, has_counts, has_pairs, learnable, lengths
from train.reward.mixture import JoinedRows
from train.reward.split import shown_by, worded
from train.reward.trees import Tree, has_both, learnt_tree, tree_of
from vlprm.errors import UserError
from vlprm.model.inputs import InputBuilder
from vlprm.runs.folder import ROW_INDEX, write_atomically
from vlprm.runs.progress import tracked

VERSION = 3  # version of the columns below
KEY = b"vlprm_index"
AT_ONCE = 64  # problems that a process measures at a time
WORTH_PROCESSES = 2_000  # rows; fewer are measured before other processes have started

SCHEMA = pa.schema({
    "id": pa.string(),
    "rows": pa.list_(pa.int32()),  # indices of its rows in the dataset
    "solutions": pa.int32(),
    "selected": pa.int32(),  # solutions that `rows` takes
    "learnt": pa.int32(),  # solutions of these that the loss learns from
    "mixed": pa.bool_(),  # whether it has right and wrong solutions
    "solved": pa.float32(),  # share of right solutions among those with a result; null without one
    "same": pa.int64(),  # hash of what is shown and asked
    "type": pa.dictionary(pa.int32(), pa.string()),  # the type of its question
    "rule": pa.dictionary(pa.int32(), pa.string()),  # the rule of its first label
    "right": pa.int32(),  # steps of its learnt solutions that have a loss
    "wrong": pa.int32(),
    "steps": pa.int32(),
    "untagged": pa.int32(),
    "shown": pa.list_(pa.int64()),  # hashes of its images' pixels or, without images, of its question
    "tokens": pa.list_(pa.int32()),  # tokens of each training row
    "depths": pa.list_(pa.int32()),  # tokens of the longest path of each training row
    "candidates": pa.list_(pa.bool_()),  # whether a training row has pairs of solutions, and of siblings
    "siblings": pa.list_(pa.bool_()),
    "counted": pa.list_(pa.bool_()),  # whether a training row has a labelled step with counts of rollouts
})  # fmt: skip


class Problems:
    """The learnt solutions of problems, read from the datasets when asked for."""

    def __init__(self, rows: JoinedRows, config: RowsConfig, loss: LossConfig) -> None:
        self.rows, self.config, self.loss = rows, config, loss

    def whole(self, rows: Iterable[int]) -> Tree:
        """All solutions of the problem with these rows."""
        return tree_of((number + 1, self.rows[number]) for number in rows)

    def learnt(self, tree: Tree) -> Tree:
        """The solutions of a problem that are trained on."""
        return learnable(learnt_tree(tree, self.config, self.loss.threshold), self.loss)

    def examples(self, rows: Iterable[int]) -> list[Example]:
        """The training rows of the problem with these rows."""
        return examples_of(self.learnt(self.whole(rows)), self.config)


@dataclass(frozen=True)
class Index:
    """The index as a table with the columns of SCHEMA, one row per problem, in the order of the dataset. Training rows
    (examples) are numbered through all problems."""

    table: pa.Table
    _lists: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> np.ndarray:
        """A column of numbers."""
        return np.asarray(self.table[name].to_numpy())

    def lists(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The values of a column of lists, one list after the other, and where each list starts, and the end."""
        if name not in self._lists:
            column = self.table[name].combine_chunks()
            values = column.values.to_numpy(zero_copy_only=False)
            self._lists[name] = np.asarray(values), np.asarray(column.offsets.to_numpy())
        return self._lists[name]

    @cached_property
    def starts(self) -> np.ndarray:
        """The first example of each problem, and the end."""
        return self.lists("tokens")[1]

    @cached_property
    def first_rows(self) -> np.ndarray:
        """The first row of each problem."""
        rows, starts = self.lists("rows")
        return np.asarray(rows[starts[:-1]])

    def problem_of(self, examples: np.ndarray) -> np.ndarray:
        """The problem of each example."""
        return np.searchsorted(self.starts, examples, side="right") - 1

    def examples_of(self, problems: np.ndarray) -> np.ndarray:
        """The examples of these problems, in their order."""
        ranges = [np.arange(self.starts[n], self.starts[n + 1]) for n in problems]
        return np.concatenate(ranges) if ranges else np.array([], dtype=np.int64)


def load_index(config: PrmConfig, inputs: InputBuilder, rows: JoinedRows) -> Index:
    """The index in the run folder, if it is of this dataset and these settings, or else a new one, which is stored
    there once the folder is open."""
    path, key = config.run / ROW_INDEX, _key(config, inputs)
    if path.exists():
        table = pq.read_table(path)
        if (table.schema.metadata or {}).get(KEY) == key:
            return Index(table)
    index = make_index(Problems(rows, config.rows, config.loss), inputs, _needs_pixels(config))
    if config.run.is_dir():
        sink = pa.BufferOutputStream()
        pq.write_table(index.table.replace_schema_metadata({KEY: key}), sink)
        write_atomically(path, sink.getvalue().to_pybytes())
    return index


def _needs_pixels(config: PrmConfig) -> bool:
    return config.held_out > 0 or config.rows.distinct


def _key(config: PrmConfig, inputs: InputBuilder) -> bytes:
    """What an index depends on."""
    files = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in config.datasets]
    parts = (
        VERSION, files, config.rows, config.loss, _needs_pixels(config), inputs.config, inputs.family,
        inputs.pixel_limits, inputs.tokenizer.name_or_path,
    )  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest().encode()


def make_index(problems: Problems, inputs: InputBuilder, pixels: bool) -> Index:
    """Measure all problems. `pixels`: also hash their images' pixels, for which each image is decoded."""
    counting = inputs.counting()
    with _mapped(len(problems.rows)) as run:
        rows = rows_of_problems(problems.rows, run)
        parts = [rows[i : i + AT_ONCE] for i in range(0, len(rows), AT_ONCE)]
        measured = run(lambda part: _measured(part, problems, counting, pixels), parts)
        tables = [*tracked(measured, f"parts of {AT_ONCE} problems measured", len(parts))]
    return Index(pa.concat_tables(tables).unify_dictionaries().combine_chunks())


def rows_of_problems(rows: JoinedRows, run: Run) -> list[np.ndarray]:
    """The rows of each question with its images, in the order of the first ones."""
    found: dict[bytes, list[int]] = {}
    number = 0
    for keys in run(lambda group: [_digest(*asked) for asked in rows.problems(group)], range(len(rows.groups))):
        for key in keys:
            found.setdefault(key, []).append(number)
            number += 1
    return [np.array(of_problem, dtype=np.int32) for of_problem in found.values()]


def _digest(question: str, images: Sequence[bytes]) -> bytes:
    digest = hashlib.blake2b(question.encode(errors="surrogatepass"), digest_size=16)
    for data in images:
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()


def _measured(part: Sequence[np.ndarray], problems: Problems, inputs: InputBuilder, pixels: bool) -> pa.Table:
    """The rows of the index for some problems. Rows without solutions make no problem."""
    entries = []
    for rows in part:
        if whole := problems.whole(map(int, rows)):
            entries.append({"rows": rows, **_entry(whole, problems, inputs, pixels)})
    return pa.Table.from_pylist(entries, SCHEMA)


def _entry(whole: Tree, problems: Problems, inputs: InputBuilder, pixels: bool) -> dict[str, Any]:
    taken = learnt_tree(whole, problems.config, problems.loss.threshold)
    learnt = learnable(taken, problems.loss)
    examples = examples_of(learnt, problems.config)
    sizes = [lengths(example, inputs, problems.loss) for example in examples]
    pairs = [has_pairs(example, problems.loss) for example in examples]
    kind, right, wrong = class_counts(learnt, problems.loss) if learnt else ("", 0, 0)
    kinds = [step.kind for path in learnt for step in path.steps]
    rules = [label.rule for label in whole[0].labels]
    outcomes = [path.right for path in whole if path.right is not None]
    problem = whole[0].problem
    shown = shown_by(problem) if pixels else []
    return {
        "id": problem.id, "solutions": len(whole), "selected": len(taken), "learnt": len(learnt),
        "mixed": has_both(whole), "type": kind, "rule": next(iter(rules), ""), "right": right,
        "wrong": wrong, "steps": len(kinds),
        "untagged": kinds.count("other"), "shown": shown, "same": worded(problem, shown),
        "solved": sum(outcomes) / len(outcomes) if outcomes else None,
        "tokens": [tokens for tokens, _ in sizes], "depths": [depth for _, depth in sizes],
        "candidates": [of_solutions for of_solutions, _ in pairs], "siblings": [siblings for _, siblings in pairs],
        "counted": [has_counts(example) for example in examples],
    }  # fmt: skip


# --- all cores

Run = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
_work: Callable[[Any], Any] | None = None  # what a process that was forked for it does


@contextmanager
def _mapped(rows: int) -> Iterator[Run]:
    """A `map` over all cores, in order. The processes are forked for each call, so that they have its function."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    if cores == 1 or rows < WORTH_PROCESSES:
        yield map
        return

    def run(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        global _work
        _work = work
        # Threads of a library do not survive a fork, and a second core would wait for them. Processes end on their own:
        # one that is killed may hold the lock for which another waits.
        context = multiprocessing.get_context("fork")
        pool = ProcessPoolExecutor(cores, context, torch.set_num_threads, (1,))
        try:
            yield from pool.map(_call, items)
        except BrokenProcessPool as error:
            raise UserError(
                "a process that measures the dataset was killed, perhaps for its memory; give the run more memory,"
                " or fewer cores (taskset -c 0-3)"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)

    yield run


def _call(item: Any) -> Any:
    assert _work is not None
    try:
        return _work(item)
    except ValueError as error:  # others of ours have arguments that do not come through
        raise UserError(str(error)) from None
