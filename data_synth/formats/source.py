"""What a source holds, one record at a time, and what of it had to be left out and why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pyarrow import ArrowException
from pyarrow.parquet import ParquetFile

from vlprm.images import LeadsOut, open_image, read_inside

Record = dict[str, Any]
T = TypeVar("T")

SUFFIXES = (".jsonl", ".json", ".parquet")


class Dropped(Exception):
    """A record that cannot be read; `cause` is one word to count by."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class Drops:
    """How many records were left out, by cause, and where the first one of each cause stands."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, cause: str, place: str, rows: int = 1) -> None:
        self.counts[cause] += rows
        self._first.setdefault(cause, place)

    def __str__(self) -> str:
        causes = (f"{cause} {n} (first: {self._first[cause]})" for cause, n in sorted(self.counts.items()))
        return f"{self.counts.total()} rows dropped" + (": " + ", ".join(causes) if self.counts else "")


class ImageFolder:
    """Images that a source names, from one folder and never from outside of it."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder and folder.resolve()

    def load(self, value: Any) -> tuple[bytes, ...]:
        """The encoded files of an image field: null, a path, bytes, a struct of both, or a list of these."""
        if value is None:
            return ()
        return tuple(self._one(item) for item in (value if isinstance(value, list) else [value]))

    def _one(self, value: Any) -> bytes:
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        data = self._file(value) if isinstance(value, str) else value
        if not isinstance(data, bytes):
            raise Dropped("image_missing")
        try:
            open_image(data)
        except ValueError as error:
            raise Dropped("image_unreadable") from error
        return data

    def _file(self, name: str) -> bytes:
        if self._folder is None:
            raise Dropped("no_image_folder")
        try:
            return read_inside(self._folder, name)
        except LeadsOut as error:
            raise Dropped("image_outside_folder") from error
        except OSError as error:
            raise Dropped("image_missing") from error


def records(source: Path, drops: Drops) -> Iterator[tuple[str, Record]]:
    """The records of a file, or of all files of a folder, each with its place. A JSON Lines or parquet file is read a
    few records at a time; a JSON file (one record, or a list of them) is read whole."""
    for path in _files(source):
        read = {".jsonl": _lines, ".json": _document, ".parquet": _table}[path.suffix]
        for place, record in read(path, drops):
            name = place if path == source else f"{path.relative_to(source)} {place}"
            if isinstance(record, dict):
                yield name, record
            else:
                drops.add("not_an_object", name)


def field(record: Record, name: str, kind: type[T]) -> T:
    """A record's field, of this type. Dropped where it is missing or of another."""
    if record.get(name) is None:
        raise Dropped(f"no_{name}")
    if not isinstance(record[name], kind):
        raise Dropped(f"{name}_type")
    return record[name]


def texts(values: Any) -> list[str]:
    """Step texts, none of them empty."""
    if not isinstance(values, list) or not values:
        raise Dropped("no_steps")
    if not all(isinstance(value, str) and value for value in values):
        raise Dropped("empty_step")
    return values


def share(value: Any) -> float | None:
    """A soft value: a number in [0, 1], or null."""
    if value is not None and not (type(value) in (int, float) and 0 <= value <= 1):  # True is no number
        raise Dropped("label_value")
    return None if value is None else float(value)


def _files(source: Path) -> list[Path]:
    if not source.exists():
        raise ValueError(f"no source {source}; give a file or a folder of {', '.join(SUFFIXES)}")
    found = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    files = [path for path in found if path.suffix in SUFFIXES]
    if not files:
        raise ValueError(f"{source} holds no file that ends in {', '.join(SUFFIXES)}; rename or convert it first")
    return files


def _lines(path: Path, drops: Drops) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield f"line {number}", json.loads(line)
                except (ValueError, RecursionError):
                    drops.add("not_json", f"line {number}")


def _document(path: Path, drops: Drops) -> Iterator[tuple[str, Any]]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        drops.add("not_json", "file")
        return
    for number, record in enumerate(content if isinstance(content, list) else [content], 1):
        yield f"item {number}", record


def _table(path: Path, drops: Drops) -> Iterator[tuple[str, Any]]:
    number, rows = 0, 1
    try:
        with ParquetFile(path) as file:
            rows = file.metadata.num_rows
            for batch in file.iter_batches(batch_size=16):
                for record in batch.to_pylist():
                    number += 1
                    yield f"row {number}", record
    except (ArrowException, OSError, ValueError):  # a ValueError is text that is not UTF-8
        drops.add("not_parquet", f"row {number + 1}", rows - number)  # the file is of no use from there on
