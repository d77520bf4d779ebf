"""An index beside an append-only journal: where each record lies, its key, and a note about it.

A run of hundreds of thousands of problems is opened, continued and merged by reading the index; the journal, a hundred
times as large, is read only where a record is needed. The index has one line of JSON per record, in the same order,
after a first line that names the summary which made the notes.

The index is never the only copy of anything. It is believed as far as its entries follow one another without a gap, if
its last entry is where it says in the journal, and if the journal has not been changed since other than by growing.
What is missing is read from the journal and added.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from vlprm.errors import UserError
from vlprm.runs.folder import INDEX, writing

Note = dict[str, Any]
FAILED, UNANSWERED = "failed", "unanswered"  # what `vlprm.runs.window` reads in notes
TAIL = 1 << 16  # bytes at the end of a file in which its last line is looked for first


@dataclass(frozen=True)
class Summary:
    """How the notes of a journal are made. `name` changes with what `of` returns, so that older notes are made again.
    In a note, `failed` has the causes why a record has no result, with their counts, and `unanswered` is true if
    servers failed to answer."""

    name: str
    of: Callable[[Mapping[str, Any]], Note]


KEYS = Summary("keys@1", lambda record: {})


@dataclass(frozen=True)
class Entry:
    """A record's byte offset in the journal, its length with the line break, its key, and its note."""

    place: int
    length: int
    key: str
    note: Note

    @property
    def end(self) -> int:
        """The byte offset after the record."""
        return self.place + self.length

    def line(self) -> bytes:
        """The entry as a line of the index."""
        return json.dumps([self.place, self.length, self.key, self.note]).encode() + b"\n"


def index_of(path: Path) -> Path:
    """The index of a journal."""
    return path.with_name(path.name + INDEX)


def header(summary: Summary) -> bytes:
    """The first line of an index."""
    return json.dumps({"summary": summary.name}).encode() + b"\n"


def entry_of(line: bytes, place: int, number: str, summary: Summary) -> Entry:
    """The entry of a journal's line. UserError names a line that is not a record."""
    record = parsed_record(line, number)
    return Entry(place, len(line), record["key"], summary.of(record))


def parsed_record(line: bytes, place: str) -> dict[str, Any]:
    """The record in a line. UserError with its place if it is none."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise UserError(f"{place} is not JSON; remove that line to continue") from error
    if not isinstance(record, dict) or "key" not in record:
        raise UserError(f"{place} is not a record with a key; remove that line to continue")
    return record


def entries(path: Path, summary: Summary = KEYS) -> Iterator[Entry]:
    """The entries of a journal's whole records, in order; none without a journal. When the last one has been
    taken, the index is complete, if its folder can be written."""
    size = path.stat().st_size if path.exists() else 0
    done, right = 0, 0  # bytes of the journal and of the index that agree
    if _is_believed(path, summary, size):
        right = len(header(summary))
        for entry, length in _stored(index_of(path), right):
            if entry.place != done:
                break
            yield entry
            done, right = entry.end, right + length
    if done < size:
        yield from _added(path, summary, done, right)


def _is_believed(path: Path, summary: Summary, size: int) -> bool:
    index = index_of(path)
    if not size or not index.exists():
        return False
    with index.open("rb") as file:
        if file.readline() != header(summary):
            return False
    last = _entry(last_line(index))
    if last is None or last.end > size or (last.end == size and index.stat().st_mtime_ns < path.stat().st_mtime_ns):
        return False
    with path.open("rb") as journal:
        journal.seek(last.place)
        line = journal.read(last.length)
    try:
        return line.endswith(b"\n") and line.count(b"\n") == 1 and bool(json.loads(line)["key"] == last.key)
    except (ValueError, TypeError, KeyError):
        return False


def _stored(index: Path, start: int) -> Iterator[tuple[Entry, int]]:
    """The entries of an index with the lengths of their lines, up to the first that is damaged."""
    with index.open("rb") as file:
        file.seek(start)
        for line in file:
            entry = _entry(line)
            if entry is None:
                return
            yield entry, len(line)


def _entry(line: bytes) -> Entry | None:
    try:
        place, length, key, note = json.loads(line)
        entry = Entry(int(place), int(length), str(key), dict(note))
    except (ValueError, TypeError):
        return None
    return entry if line.endswith(b"\n") else None


def _added(path: Path, summary: Summary, done: int, right: int) -> Iterator[Entry]:
    """The entries of the records after byte `done`. They are put after the first `right` bytes of the index."""
    index = index_of(path)
    draft = index.with_name(f"{index.name}.{os.getpid()}.draft")
    number = 0
    with contextlib.ExitStack() as opened:
        opened.enter_context(writing(index))
        opened.callback(draft.unlink, missing_ok=True)
        target = _begun(draft, index, right, summary)
        journal = opened.enter_context(path.open("rb"))
        if target is not None:
            opened.enter_context(target)
        journal.seek(done)
        for number, line in enumerate(journal, 1):
            if not line.endswith(b"\n"):  # cut short by a kill, or still being written
                break
            entry = entry_of(line, done, f"{path}, line {number}" if right == 0 else f"{path}, byte {done}", summary)
            done = entry.end
            if target is not None:
                target.write(entry.line())
            yield entry
        if target is not None and (number or right):
            target.close()
            draft.replace(index)


def _begun(draft: Path, index: Path, right: int, summary: Summary) -> BinaryIO | None:
    """A new index that begins with the right part of the old one; None if the folder cannot be written."""
    try:
        target = draft.open("wb")
    except OSError:
        return None
    if right:
        with index.open("rb") as old:
            target.write(old.read(right))
    else:
        target.write(header(summary))
    return target


def last_line(path: Path) -> bytes:
    """The last whole line of a file; empty if there is none."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        taken = TAIL
        while True:
            start = max(0, size - taken)
            file.seek(start)
            lines = file.read().split(b"\n")[:-1]
            if len(lines) > 1 or start == 0:
                return lines[-1] + b"\n" if lines else b""
            taken *= 4
