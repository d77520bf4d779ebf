"""Training reads its datasets as streams: what is read, when, and by whom."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from eval.report import measured_labels
from tests.train.test_unlabelled import LABELLED, trl
from train import prm
from train.prm import make_trainer, new_model
from train.reward import index
from train.reward.config import PrmConfig, RowsConfig
from train.reward.planning import split_rows
from vlprm.data.dataset import ROW_GROUP_BYTES, iterate_rows, row_count, write_dataset
from vlprm.data.row_file import TableFile
from vlprm.data.trl_format import TrainingRows
from vlprm.model.inputs import InputBuilder
from vlprm.runs.folder import ROW_INDEX
from vlprm.tasks import TASKS

RIGHT, WRONG = [True, True], [True, False]


def questions(config: PrmConfig, inputs: InputBuilder) -> list[str]:
    """The questions of an epoch, in alphabetical order."""
    train, _ = split_rows(config, inputs)
    return sorted(tree[0].problem.question for at in range(len(train)) for tree in train.examples(at))


def test_rows_are_read_by_number_a_group_at_a_time(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, path = [*iterate_rows(dataset)], tmp_path / "d.parquet"
    pq.write_table(pq.read_table(dataset), path, row_group_size=3)
    file = TableFile(path)
    assert [count for count, _ in file.groups] == [3, 3, 3, 1]
    monkeypatch.setattr("vlprm.data.row_file.KEPT_BYTES", 1)
    assert [file.row(number) for number in (9, 0, 4, 4, 8)] == [rows[number] for number in (9, 0, 4, 4, 8)]
    assert len(file._kept) == 1
    assert [*TrainingRows(path)] == rows


def test_a_row_group_is_bounded_in_bytes(dataset: Path, tmp_path: Path) -> None:
    (row, *_) = iterate_rows(dataset)
    large = {**row, "images": [{"bytes": bytes(ROW_GROUP_BYTES // 3), "path": None}]}
    assert write_dataset(tmp_path / "d.parquet", [large] * 7 + [row] * 250) == row_count(tmp_path / "d.parquet") == 257
    counts = [count for count, _ in TableFile(tmp_path / "d.parquet").groups]
    assert counts[:3] == [2, 2, 2]
    assert max(counts) == 100


def test_the_index_is_stored_and_read_again_where_it_fits(
    dataset: Path, inputs: InputBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PrmConfig(dataset, tmp_path / "run", held_out=0.2)
    config.run.mkdir()
    made: list[Any] = []
    real = index.make_index
    monkeypatch.setattr(index, "make_index", lambda *args: made.append(args) or real(*args))
    before = questions(config, inputs)
    assert (config.run / ROW_INDEX).exists()
    assert questions(config, inputs) == before
    assert len(made) == 1
    questions(dataclasses.replace(config, rows=RowsConfig(max_paths_per_tree=1)), inputs)
    assert len(made) == 2, "an index of other settings"


def test_many_processes_measure_what_one_does(
    dataset: Path, inputs: InputBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PrmConfig(dataset, tmp_path, held_out=0.2)
    problems = index.Problems(index.JoinedRows(config.datasets), config.rows, config.loss)
    alone = index.make_index(problems, inputs, True)
    monkeypatch.setattr(index, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(index, "AT_ONCE", 3)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    together = index.make_index(problems, inputs, True)
    assert together.table.to_pylist() == alone.table.to_pylist()
    broken = trl(tmp_path / "d.jsonl", [LABELLED, [True]])
    problems = index.Problems(index.JoinedRows([broken]), config.rows, config.loss)
    with pytest.raises(ValueError, match=r"^[^\n]*d\.jsonl, row 2: it has 1 labels for 2 steps[^\n]*$"):
        index.make_index(problems, inputs, False)


def fails_in_time(*_: Any) -> None:
    raise TimeoutError("a process that was killed is waited for")


def test_a_process_that_is_killed_ends_the_run_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "WORTH_PROCESSES", 0)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    before = signal.signal(signal.SIGALRM, fails_in_time)
    signal.alarm(60)
    with index._mapped(4) as run, pytest.raises(ValueError, match="a process that measures the dataset was killed"):
        list(run(lambda item: os.kill(os.getpid(), signal.SIGKILL), range(4)))
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_batches_do_not_depend_on_the_processes_that_make_them(dataset: Path, backbone: Path, tmp_path: Path) -> None:
    config = PrmConfig(dataset, tmp_path, str(backbone), rows=RowsConfig(batch_tokens=700), held_out=0.2)
    checkpoint = new_model(config)
    batches = []
    for workers in (0, 2):
        sides = split_rows(config, checkpoint.inputs)
        trainer = make_trainer(dataclasses.replace(config, workers=workers), checkpoint, *sides)
        batches.append([*trainer.get_train_dataloader()])
    assert len(batches[0]) == len(batches[1]) > 2
    for one, other in zip(*batches, strict=True):
        assert set(one) == set(other)
        for name, value in one.items():
            assert torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]


def test_an_image_that_cannot_be_read_stops_a_run_in_one_sentence(
    dataset: Path, backbone: Path, tmp_path: Path
) -> None:
    """Its head is sound, so that its size is known; a process of the data loader finds out."""
    rows = [*iterate_rows(dataset)]
    data = rows[0]["images"][0]["bytes"]
    rows[0]["images"][0]["bytes"] = data[: len(data) // 2]
    write_dataset(tmp_path / "d.parquet", rows)
    config = PrmConfig(tmp_path / "d.parquet", tmp_path / "run", str(backbone), held_out=0.0)
    with pytest.raises(ValueError, match=r"^image \w+ cannot be read [^\n]*; create the file again$"):
        prm.main(config)


def test_problems_are_filtered_by_difficulty_and_once_each(tmp_path: Path, dataset: Path, inputs: InputBuilder) -> None:
    path = trl(tmp_path / "d.jsonl", [LABELLED] * 3)
    more = [json.loads(line) for line in path.read_text().splitlines()]
    more[2]["prompt"] = "  q0? "
    path.write_text("".join(json.dumps(row) + "\n" for row in more))
    config = PrmConfig(path, tmp_path / "run", held_out=0.0)
    assert questions(config, inputs) == ["  q0? ", "Q0?", "Q1?"]
    assert questions(dataclasses.replace(config, rows=RowsConfig(distinct=True)), inputs) == ["Q0?", "Q1?"]
    with pytest.raises(ValueError, match=r"has a share of right solutions from 0\.5 to 1; widen rows\.solved"):
        questions(dataclasses.replace(config, rows=RowsConfig(solved=(0.5, 1.0))), inputs)
    config, shares = PrmConfig(dataset, tmp_path / "run", held_out=0.0), {}
    for row in iterate_rows(dataset):
        known = [leaf["right"] for leaf in row["leaves"] if leaf["right"] is not None]
        shares[row["prompt"]] = sum(known) / len(known) if known else -1.0
    middle = sorted(question for question, share in shares.items() if 0.3 <= share <= 0.8)
    assert 0 < len(middle) < len(shares)
    assert questions(dataclasses.replace(config, rows=RowsConfig(solved=(0.3, 0.8))), inputs) == middle


def test_datasets_are_mixed_by_weight(tmp_path: Path, inputs: InputBuilder) -> None:
    first = trl(tmp_path / "a.jsonl", [LABELLED] * 4)
    second = trl(tmp_path / "b.jsonl", [LABELLED] * 6, "R{}?")
    config = PrmConfig(first, tmp_path / "run", also={str(second): 1.5}, held_out=0.0)
    asked = questions(config, inputs)
    assert [q for q in asked if q.startswith("Q")] == [f"Q{n}?" for n in range(4)]
    assert len(asked) == 4 + 9
    with pytest.raises(ValueError, match="also names a dataset that is given already"):
        questions(dataclasses.replace(config, also={str(first): 1.0}), inputs)
    long = dataclasses.replace(config, rows=RowsConfig(longest=1))
    with pytest.raises(ValueError, match=r"row \d of \S+[ab]\.jsonl \("):
        questions(long, inputs)


READERS: dict[str, Callable[[Path], Any]] = {
    "rows": lambda path: sum(1 for _ in iterate_rows(path)),
    "labels": lambda path: measured_labels(path, TASKS),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_of_every_row_holds_a_row_group(dataset: Path, tmp_path: Path, reader: str) -> None:
    image = {"bytes": random.Random(0).randbytes(1 << 20), "path": None}
    write_dataset(tmp_path / "d.parquet", [{**row, "images": [image]} for row in [*iterate_rows(dataset)] * 4])
    tracemalloc.start()
    assert READERS[reader](tmp_path / "d.parquet")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * ROW_GROUP_BYTES
