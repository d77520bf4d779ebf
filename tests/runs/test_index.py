"""The index beside a journal: it saves reading the journal, and it is never believed where it may be wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from vlprm.runs.folder import DONE, fingerprint
from vlprm.runs.index import Entry, Summary, entries, index_of
from vlprm.runs.journal import Records, finish, record_at, refuse_unfinished

SUMMARY = Summary("test@1", lambda record: {"x": record["x"]})


@pytest.fixture
def records(tmp_path: Path) -> Records:
    made = Records(tmp_path / "r.jsonl", SUMMARY)
    made.append({"key": name, "x": at} for at, name in enumerate("abcd"))
    return made


class Counted:
    """A summary that counts the records that it is asked about."""

    def __init__(self, name: str = SUMMARY.name) -> None:
        self.read = 0
        self.summary = Summary(name, self._note)

    def _note(self, record: Mapping[str, Any]) -> dict[str, Any]:
        self.read += 1
        return SUMMARY.of(record)


def listed(path: Path, summary: Summary = SUMMARY) -> list[Entry]:
    """The entries, each of which must be what the journal has at its place."""
    found = list(entries(path, summary))
    for entry in found:
        record = record_at(path, entry.place)
        assert (entry.key, entry.note) == (record["key"], {"x": record["x"]})
    return found


def test_what_is_in_the_index_is_not_read_from_the_journal(records: Records) -> None:
    watched = Counted()
    assert [entry.key for entry in listed(records.path, watched.summary)] == list("abcd")
    assert not watched.read
    index_of(records.path).unlink()
    assert [entry.key for entry in listed(records.path, watched.summary)] == list("abcd")
    assert watched.read == 4
    listed(records.path, watched.summary)
    assert watched.read == 4, "the index was made again"


def test_a_journal_that_grew_is_read_from_where_the_index_ends(records: Records) -> None:
    """A kill between the two leaves a record that the index lacks."""
    with records.path.open("a") as file:
        file.write(json.dumps({"key": "e", "x": 9}) + "\n" + '{"key": "torn')
    watched = Counted()
    again = Records(records.path, watched.summary)
    assert (again.keys, watched.read) == (set("abcde"), 1)
    again.append([{"key": "f", "x": 5}])
    watched.read = 0
    assert [entry.key for entry in listed(records.path, watched.summary)] == list("abcdef")
    assert watched.read == 0


def _cut(index: Path) -> None:
    index.write_bytes(index.read_bytes()[:-7])


def _without_a_line(index: Path) -> None:
    lines = index.read_text().splitlines(keepends=True)
    index.write_text("".join(lines[:2] + lines[3:]))


def _zeros(index: Path) -> None:
    lines = index.read_bytes().splitlines(keepends=True)
    index.write_bytes(b"".join([*lines[:2], b"\0" * (len(lines[2]) - 1) + b"\n", *lines[3:]]))


def _of_another(index: Path) -> None:
    other = Records(index.with_name("other.jsonl"), SUMMARY)
    other.append({"key": name, "x": at} for at, name in enumerate("wxyz"))
    os.replace(index_of(other.path), index)


def _older_notes(index: Path) -> None:
    index.write_text(index.read_text().replace("test@1", "test@0").replace('"x": 2', '"x": 7'))


@pytest.mark.parametrize("damage", [_cut, _without_a_line, _zeros, _of_another, _older_notes])
def test_a_damaged_index_is_made_again(records: Records, damage: Callable[[Path], None]) -> None:
    whole = index_of(records.path).read_bytes()
    damage(index_of(records.path))
    assert [entry.key for entry in listed(records.path)] == list("abcd")
    assert index_of(records.path).read_bytes() == whole


def test_a_journal_that_was_edited_is_read_again(records: Records) -> None:
    index = index_of(records.path)
    long_ago = index.stat().st_mtime_ns - 10**9
    os.utime(index, ns=(long_ago, long_ago))
    records.path.write_text(records.path.read_text().replace('"x": 1', '"x": 8'))
    assert [entry.note["x"] for entry in listed(records.path)] == [0, 8, 2, 3]
    records.path.write_text(records.path.read_text().replace('{"key": "b", "x": 8}\n', ""))
    assert [entry.key for entry in listed(records.path)] == list("acd")
    records.path.write_text("garbage\n")
    with pytest.raises(ValueError, match="line 1 is not JSON"):
        listed(records.path)
    assert not list(records.path.parent.glob("*.draft"))


def test_records_that_are_dropped_leave_the_index_too(records: Records) -> None:
    records.drop({"b", "d"})
    watched = Counted()
    assert [entry.key for entry in listed(records.path, watched.summary)] == ["a", "c"]
    assert not watched.read
    records.append([{"key": "b", "x": 7}])
    assert [entry.note["x"] for entry in listed(records.path)] == [0, 2, 7]


def test_a_folder_that_cannot_be_written_is_read_without_an_index(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_of(records.path).unlink()
    opened = Path.open

    def refused(path: Path, mode: str = "r", *rest: Any) -> Any:
        if "w" in mode:
            raise PermissionError(13, "Permission denied")
        return opened(path, mode, *rest)

    monkeypatch.setattr(Path, "open", refused)
    assert [entry.key for entry in listed(records.path)] == list("abcd")
    assert not index_of(records.path).exists()


def test_a_finished_journal_is_known_without_reading_it(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(records)
    hashed = fingerprint(records.path)
    with monkeypatch.context() as without:
        without.setattr("hashlib.file_digest", lambda *_: pytest.fail("the journal was read"))
        refuse_unfinished(records.path, "a.stage")
        assert fingerprint(records.path) == hashed
    os.utime(records.path, ns=(1, 1))  # as after a copy
    refuse_unfinished(records.path, "a.stage")
    records.path.write_text(records.path.read_text().replace('"x": 1', '"x": 8'))
    with pytest.raises(ValueError, match="has changed since its stage ended"):
        refuse_unfinished(records.path, "a.stage")
    assert json.loads(records.path.with_name(DONE).read_text())[records.path.name] == hashed
