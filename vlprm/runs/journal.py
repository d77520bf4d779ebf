"""Append-only JSON Lines records: a kill loses nothing, and they are read one at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from vlprm.errors import UserError
from vlprm.runs.folder import DONE, _writing, fingerprint, json_object, write_atomically

T = TypeVar("T")


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file, one at a time; none if there is no file. Writes nothing, because another process may be
    appending; an unfinished last line is skipped. UserError names a line that is not a record."""
    for _, record in placed_records(path):
        yield record


def placed_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of a file, each with its byte offset, from which `record_at` reads it again."""
    lines = placed_lines(path) if path.exists() else iter(())
    for number, (place, line) in enumerate(lines, 1):
        if line.endswith(b"\n"):
            yield place, _record(line, f"{path}, line {number}")


def placed_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, each with its byte offset."""
    place = 0
    with path.open("rb") as file:
        for line in file:
            yield place, line
            place += len(line)


def record_at(path: Path, place: int) -> dict[str, Any]:
    """The record at a byte offset."""
    with path.open("rb") as file:
        file.seek(place)
        return _record(file.readline(), f"{path}, byte {place}")


def _record(line: bytes, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise UserError(f"{place} is not JSON; remove that line to continue") from error
    if not isinstance(record, dict) or "key" not in record:
        raise UserError(f"{place} is not a record with a key; remove that line to continue")
    return record


class Records:
    """A JSONL file of objects with a `key` each, opened for appending. A last line that a kill cut short is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._drop_torn_line()
        self.keys: set[str] = {record["key"] for record in self}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return read_records(self.path)

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write records that belong together and flush them to disk. A key that already exists is an error."""
        batch = list(records)
        for record in batch:
            assert record["key"] not in self.keys, f"{self.path} has {record['key']} already"
            self.keys.add(record["key"])
        with _writing(self.path), self.path.open("a") as file:
            file.writelines(json.dumps(record) + "\n" for record in batch)
            file.flush()
            os.fsync(file.fileno())

    def drop(self, keys: set[str]) -> None:
        """Remove the records with these keys."""
        kept = [json.dumps(record) + "\n" for record in self if record["key"] not in keys]
        write_atomically(self.path, "".join(kept))
        self.keys -= keys

    def _drop_torn_line(self) -> None:
        if self.path.exists():
            data = self.path.read_bytes()
            if data and not data.endswith(b"\n"):
                write_atomically(self.path, data[: data.rfind(b"\n") + 1])


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append one record without flushing to disk: it survives a kill of this process, but not of the machine."""
    with _writing(path), path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def finish(records: Records) -> None:
    """Mark the stage that writes these records as finished: store their fingerprint in `done.json` next to them."""
    done = {records.path.name: fingerprint(records.path)}
    write_atomically(records.path.with_name(DONE), json.dumps(done) + "\n")


def finished_records(path: Path, stage: str) -> list[dict[str, Any]]:
    """The records of a finished stage, all in memory; see `iterate_finished`."""
    return list(iterate_finished(path, stage))


def iterate_finished(path: Path, stage: str) -> Iterator[dict[str, Any]]:
    """The records of a finished stage, one at a time. UserError if the stage has not ended, the file has changed since
    (numbers over a part would mislead), or there are no records."""
    refuse_unfinished(path, stage)
    record = None
    for record in read_records(path):
        yield record
    if record is None:
        raise UserError(f"{path} has no records; run `python -m {stage}` for at least one problem")


def refuse_unfinished(path: Path, stage: str) -> None:
    """UserError unless the stage that writes this file has ended and the file has not changed since."""
    if not path.exists():
        raise UserError(f"{path} does not exist; make it with `python -m {stage}`")
    done = json_object(path.with_name(DONE))
    if path.name not in done:
        raise UserError(f"{path} is not finished (it has no {DONE}); run `python -m {stage}` to its end")
    if done[path.name] != fingerprint(path):
        raise UserError(f"{path} has changed since its stage ended; copy it again, or remove it and run {stage}")


def in_units(items: Sequence[T], size: int, records: Records, key: Callable[[T], str]) -> Iterator[list[T]]:
    """Units of `size` items that do not all have records yet.

    A unit is computed as a whole and appended at once, so that its batches, and thus its results to the last bit, are
    the same whether or not the run was interrupted before.
    """
    for start in range(0, len(items), size):
        unit = list(items[start : start + size])
        keys = {key(item) for item in unit}
        if keys <= records.keys:
            continue
        if keys & records.keys:  # the run was killed while it wrote the unit
            records.drop(keys)
        yield unit
