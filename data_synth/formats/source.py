"""Read the records of a source one at a time, and count dropped records by cause."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyarrow import ArrowException
from pyarrow.parquet import ParquetFile

from vlprm.data.importing import Record
from vlprm.errors import UserError

SUFFIXES = (".jsonl", ".json", ".parquet")


class Drops:
    """Number of dropped records by cause, and the place of the first one of each cause."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, cause: str, place: str, rows: int = 1) -> None:
        """Count `rows` dropped records."""
        self.counts[cause] += rows
        self._first.setdefault(cause, place)

    def __str__(self) -> str:
        causes = (f"{cause} {n} (first: {self._first[cause]})" for cause, n in sorted(self.counts.items()))
        return f"{self.counts.total()} rows dropped" + (": " + ", ".join(causes) if self.counts else "")


def records(source: Path, drops: Drops) -> Iterator[tuple[str, Record]]:
    """Yield the place and content of each record of a file, or of all files in a folder. JSON Lines and parquet files
    are streamed; a JSON file (one record, or a list) is read whole. UserError if the file is missing."""
    for path in _files(source):
        read = {".jsonl": _lines, ".json": _document, ".parquet": _table}[path.suffix]
        for place, record in read(path, drops):
            name = place if path == source else f"{path.relative_to(source)} {place}"
            if isinstance(record, dict):
                yield name, record
            else:
                drops.add("not_an_object", name)


def _files(source: Path) -> list[Path]:
    if not source.exists():
        raise UserError(f"no source {source}; give a file or a folder of {', '.join(SUFFIXES)} files")
    found = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    files = [path for path in found if path.suffix in SUFFIXES]
    if not files:
        raise UserError(f"{source} has no {', '.join(SUFFIXES)} file; rename or convert it first")
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
    except (ArrowException, OSError, ValueError):  # ValueError: text is not UTF-8
        drops.add("not_parquet", f"row {number + 1}", rows - number)  # the rest of the file is unreadable
