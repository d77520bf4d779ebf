"""Run folders that lose nothing: append-only records with deterministic keys. To resume is to skip what is there.

A records file grows while its stage runs, so a stage that ended says so (`done.json`), and the next one reads nothing
else. Files that are written at once (a dataset, a checkpoint's `vlprm.json`) need no such word.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
CONFIG, INPUTS, DONE, SECONDS = "config.yaml", "inputs.json", "done.json", "seconds.json"
PACKAGES = ("torch", "torchvision", "transformers", "datasets", "pillow", "numpy")


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file, one at a time; none where there is no file. Writes nothing: another process may be
    appending, and a line that is not finished is not there yet. ValueError names a line that is no record."""
    for _, record in placed_records(path):
        yield record


def placed_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of a file, each with the place of its first byte, from which `record_at` reads it again."""
    lines = placed_lines(path) if path.exists() else iter(())
    for number, (place, line) in enumerate(lines, 1):
        if line.endswith(b"\n"):
            yield place, _record(line, f"{path}, line {number}")


def placed_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, each with the place of its first byte."""
    place = 0
    with path.open("rb") as file:
        for line in file:
            yield place, line
            place += len(line)


def record_at(path: Path, place: int) -> dict[str, Any]:
    with path.open("rb") as file:
        file.seek(place)
        return _record(file.readline(), f"{path}, byte {place}")


def _record(line: bytes, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place} is not JSON; remove that line to go on") from error
    if not isinstance(record, dict) or "key" not in record:
        raise ValueError(f"{place} is not a record with a key; remove that line to go on")
    return record


class Records:
    """A JSONL file of objects with a `key` each, opened to append: a last line that a kill cut short is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._drop_torn_line()
        self.keys: set[str] = {record["key"] for record in self}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return read_records(self.path)

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write records that belong together and flush them to disk. A key that is there already is an error."""
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
    """Append one record and hand it to the system, which keeps it if this process is killed; not yet to the disk."""
    with _writing(path), path.open("a") as file:
        file.write(json.dumps(record) + "\n")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """ValueError where the disk takes no more. A line that was cut short then is dropped by the next run."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{path} cannot be written ({error.strerror}); make room, then run the same command again to go on"
        ) from error


def finish(records: Records) -> None:
    """Say that the stage that writes these records has ended: their fingerprint, in `done.json` beside them."""
    done = {records.path.name: fingerprint(records.path)}
    write_atomically(records.path.with_name(DONE), json.dumps(done) + "\n")


def finished_records(path: Path, stage: str) -> list[dict[str, Any]]:
    """The records that a stage left when it ended, all in memory; see `iterate_finished`."""
    return list(iterate_finished(path, stage))


def iterate_finished(path: Path, stage: str) -> Iterator[dict[str, Any]]:
    """The records that a stage left when it ended, one at a time. ValueError if it has not ended, if the file is not as
    it was then (a number over a part would mislead), or if there are none."""
    refuse_unfinished(path, stage)
    record = None
    for record in read_records(path):
        yield record
    if record is None:
        raise ValueError(f"{path} has no records; run `python -m {stage}` for at least one problem")


def refuse_unfinished(path: Path, stage: str) -> None:
    """ValueError unless the stage that writes this file has ended and the file is as it was then."""
    if not path.exists():
        raise ValueError(f"{path} does not exist; make it with `python -m {stage}`")
    done = json_object(path.with_name(DONE))
    if path.name not in done:
        raise ValueError(f"{path} is not finished (it has no {DONE}); run `python -m {stage}` to its end")
    if done[path.name] != fingerprint(path):
        raise ValueError(f"{path} has changed since its stage ended; copy it again, or remove it and run {stage}")


def refuse_other_inputs(folder: Path, inputs: Sequence[Path]) -> None:
    """ValueError unless the run in `folder` was made from these very files, wherever they lay then."""
    known = json_object(folder / INPUTS).values()
    for path in inputs:
        if fingerprint(path) not in known:
            raise ValueError(f"{folder} was not made from {path} as it is now; remove {folder} and run its stage again")


def in_units(items: Sequence[T], size: int, records: Records, key: Callable[[T], str]) -> Iterator[list[T]]:
    """Units of `size` items of which not all have records yet.

    A unit is computed as a whole and appended at once, so that its batches, and with them its results to the last
    bit, are the same whether or not the run was interrupted before.
    """
    for start in range(0, len(items), size):
        unit = list(items[start : start + size])
        keys = {key(item) for item in unit}
        if keys <= records.keys:
            continue
        if keys & records.keys:  # a kill while the unit was being written
            records.drop(keys)
        yield unit


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader, or the next run after a kill, sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")  # shards write the same image at the same time
    with _writing(path):
        draft.write_bytes(data.encode() if isinstance(data, str) else data)
    draft.replace(path)


def open_run(folder: Path, config_text: str, seed: int, inputs: Sequence[Path] = ()) -> None:
    """Put `config.yaml`, `inputs.json` and `env.json` into a run folder.

    ValueError if a run with another config, or from other input files, is there: to go on would mix two runs.
    """
    prints = {str(path): fingerprint(path) for path in inputs}
    _same_or_new(folder / CONFIG, config_text, "with another config")
    _same_or_new(folder / INPUTS, json.dumps(prints, indent=2) + "\n", "made from other inputs")
    if not (folder / "env.json").exists():
        write_atomically(folder / "env.json", json.dumps(environment(seed), indent=2) + "\n")


# The files that make a checkpoint folder what it is; a run's own notes beside them (env.json, metrics) do not.
_CHECKPOINT_FILES = ("*.safetensors", "config.json", "*token*.json", "*processor*.json", "*.jinja", "vlprm.json")


def fingerprint(path: Path) -> str:
    """A hash of a file's bytes, or of a checkpoint folder's files. ValueError if there is nothing."""
    if not path.exists():
        raise ValueError(f"{path} does not exist; run the stage that makes it first")
    names = {file for pattern in _CHECKPOINT_FILES for file in path.glob(pattern)} if path.is_dir() else {path}
    digest = hashlib.sha256()
    for file in sorted(names):
        with file.open("rb") as stream:
            digest.update(file.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _same_or_new(path: Path, text: str, difference: str) -> None:
    if path.exists() and path.read_text() != text:
        raise ValueError(f"{path.parent} holds a run {difference}; choose another folder or remove it")
    write_atomically(path, text)


def json_object(path: Path) -> dict[str, Any]:
    """Empty where there is no such file."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def environment(seed: int) -> dict[str, Any]:
    """Versions, commit and seed: what a number depends on beside the config."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "seed": seed,
    }


@contextmanager
def timed(folder: Path, stage: str) -> Iterator[None]:
    """Add the seconds that a stage takes to `seconds.json`, over all the runs that it took. A mistake that was found
    before the run was opened leaves nothing."""
    started = time.time()
    try:
        yield
    finally:
        if (folder / CONFIG).exists():
            seconds = seconds_of(folder)
            seconds[stage] = round(seconds.get(stage, 0.0) + time.time() - started, 2)
            write_atomically(folder / SECONDS, json.dumps(seconds) + "\n")


def seconds_of(folder: Path) -> dict[str, float]:
    """Seconds by stage; none where the folder was made by a program that keeps no time."""
    return json_object(folder / SECONDS)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _commit() -> str:
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
