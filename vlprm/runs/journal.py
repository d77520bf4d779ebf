"""Append-only JSON Lines records: a kill loses nothing, and they are read one at a time."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from vlprm.errors import UserError
from vlprm.runs.folder import DONE, SEEN, fingerprint, json_object, seen, write_atomically, writing
from vlprm.runs.index import KEYS, Entry, Summary, entries, header, index_of, parsed_record

T = TypeVar("T")


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file, one at a time; none without a file. Writes nothing, because another process may be
    appending; an unfinished last line is skipped. UserError names a line that is not a record."""
    for _, record in placed_records(path):
        yield record


def placed_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of a file, each with its byte offset, from which `record_at` reads it again."""
    lines = placed_lines(path) if path.exists() else iter(())
    for number, (place, line) in enumerate(lines, 1):
        if line.endswith(b"\n"):
            yield place, parsed_record(line, f"{path}, line {number}")


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
        return parsed_record(file.readline(), f"{path}, byte {place}")


class Records:
    """A JSONL file of objects with a `key` each, opened for appending. A last line that a kill cut short is dropped.

    Its index (see `vlprm.runs.index`) says what is there, with the notes that `summary` makes of the records."""

    def __init__(self, path: Path, summary: Summary = KEYS) -> None:
        self.path, self.summary = path, summary
        path.parent.mkdir(parents=True, exist_ok=True)
        self.keys: set[str] = {entry.key for entry in self.entries()}
        self._drop_torn_line()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return read_records(self.path)

    def entries(self) -> Iterator[Entry]:
        """What the index says of each record."""
        return entries(self.path, self.summary)

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write records that belong together and flush them to disk. A key that already exists is an error."""
        batch = list(records)
        for record in batch:
            assert record["key"] not in self.keys, f"{self.path} has {record['key']} already"
            self.keys.add(record["key"])
        lines = [json.dumps(record).encode() + b"\n" for record in batch]
        with writing(self.path), self.path.open("ab") as file:
            place = file.tell()
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        index = index_of(self.path)
        with writing(index), index.open("ab") as file:
            if not file.tell():
                file.write(header(self.summary))
            for record, line in zip(batch, lines, strict=True):
                file.write(Entry(place, len(line), record["key"], self.summary.of(record)).line())
                place += len(line)

    def drop(self, keys: set[str]) -> None:
        """Remove the records with these keys."""
        index, place = index_of(self.path), 0
        drafts = [path.with_name(f"{path.name}.{os.getpid()}.draft") for path in (self.path, index)]
        with writing(self.path), drafts[0].open("wb") as kept, drafts[1].open("wb") as listed:
            listed.write(header(self.summary))
            for entry, line in self._lines():
                if entry.key not in keys:
                    kept.write(line)
                    listed.write(dataclasses.replace(entry, place=place).line())
                    place += len(line)
            kept.flush()
            os.fsync(kept.fileno())
        index.unlink(missing_ok=True)  # it would be wrong if a kill came between the two
        drafts[0].replace(self.path)
        drafts[1].replace(index)
        self.keys -= keys

    def _lines(self) -> Iterator[tuple[Entry, bytes]]:
        if self.keys:
            with self.path.open("rb") as file:
                for entry in self.entries():
                    file.seek(entry.place)
                    yield entry, file.read(entry.length)

    def _drop_torn_line(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            if not size or (file.seek(size - 1), file.read(1))[1] == b"\n":
                return
            file.truncate(sum(entry.length for entry in self.entries()))
        if index_of(self.path).exists():
            os.utime(index_of(self.path))  # still right, and not older than the journal


def append_line(path: Path, record: Mapping[str, Any]) -> int:
    """Append one record without flushing to disk: it survives a kill of this process, but not of the machine. Returns
    the length of its line in bytes."""
    with writing(path), path.open("ab") as file:
        return file.write(json.dumps(record).encode() + b"\n")


def finish(records: Records) -> None:
    """Mark the stage that writes these records as finished: store their fingerprint in `done.json` next to them."""
    path = records.path
    done = {path.name: fingerprint(path), SEEN: {path.name: seen(path)}}
    write_atomically(path.with_name(DONE), json.dumps(done) + "\n")


def finished_records(path: Path, stage: str) -> list[dict[str, Any]]:
    """The records of a finished stage, all in memory; see `iterate_finished`."""
    return list(iterate_finished(path, stage))


def iterate_finished(path: Path, stage: str) -> Iterator[dict[str, Any]]:
    """The records of a finished stage, one at a time. UserError if the stage has not ended, the file has changed since
    (numbers over a part would mislead), or it is empty."""
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
