"""Run folders that lose nothing: append-only records with deterministic keys. Resuming skips what is already there.

A records file grows while its stage runs, so a finished stage writes `done.json`, and the next stage reads only
finished files. Files that are written atomically (a dataset, a checkpoint's `vlprm.json`) need no such mark.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vlprm.errors import UserError
from vlprm.runs.resume import refuse_changed_inputs, refuse_other_settings

_COMMIT = re.compile(r"[0-9a-f]{40}")
CONFIG, INPUTS, ENV, DONE, SECONDS = "config.yaml", "inputs.json", "env.json", "done.json", "seconds.json"
COST = "cost.json"  # what the stages cost, see vlprm.runs.cost
INDEX = ".index"  # what the name of a journal's index ends with, see vlprm.runs.index
SEEN = "seen"  # in done.json: size and time of change of the files when their hashes were taken
ROW_INDEX = "index.parquet"  # index of a dataset's rows, which is made again where it does not fit
PACKAGES = ("torch", "torchvision", "transformers", "datasets", "pillow", "numpy")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """UserError if the disk is full or not writable. The next run drops a line that was cut short."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); make room, then run the same command again to continue"
        ) from error


def refuse_other_inputs(folder: Path, inputs: Sequence[Path]) -> None:
    """UserError unless the run in `folder` was made from these exact files, wherever they were then."""
    known = json_object(folder / INPUTS).values()
    for path in inputs:
        if fingerprint(path) not in known:
            raise UserError(f"{folder} was not made from {path} as it is now; remove {folder} and run its stage again")


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader, or the next run after a kill, sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")  # shards write the same image at the same time
    with writing(path):
        draft.write_bytes(data.encode() if isinstance(data, str) else data)
    draft.replace(path)


def open_run(
    folder: Path,
    config_text: str,
    seed: int,
    inputs: Sequence[Path] = (),
    served: Sequence[Path] = (),
    fixed: Container[str] = (),
    free: Container[str] = (),
    holds_runs: bool = False,
) -> None:
    """Put `config.yaml`, `inputs.json` and `env.json` into a run folder. `served`: checkpoint folders of served models,
    whose weights may not be on this machine. `holds_runs`: the folder has the run folders of other commands.

    UserError if the folder has results of another config or other input files, because continuing would mix two runs.
    Settings that do not change results (`vlprm.runs.resume.FREE`, and those in `free`) may differ, except those in
    `fixed`.
    """
    prints = {str(path): fingerprint(path) for path in inputs}
    prints |= {str(path): fingerprint(path, weights=False) for path in served}
    _make(folder)
    continues = _has_work(folder)
    if continues and (folder / CONFIG).exists():
        refuse_other_settings(folder, (folder / CONFIG).read_text(), config_text, fixed, free)
    elif continues and not holds_runs:
        raise UserError(f"{folder.absolute()} has files of something else; give a new folder with --run")
    if continues and (folder / INPUTS).exists():
        refuse_changed_inputs(folder, json_object(folder / INPUTS), prints)
    write_atomically(folder / CONFIG, config_text)
    write_atomically(folder / INPUTS, json.dumps(prints, indent=2) + "\n")
    if not (continues and (folder / ENV).exists()):
        write_atomically(folder / ENV, json.dumps(environment(seed), indent=2) + "\n")


def _has_work(folder: Path) -> bool:
    """Whether a folder holds more than the notes of a try that ended before its first result."""
    notes = {CONFIG, INPUTS, ENV, DONE, SECONDS, COST, ROW_INDEX}
    passing = (".draft", INDEX)
    files = (path for path in folder.rglob("*") if path.name not in notes and not path.name.endswith(passing))
    return any(path.is_file() and path.stat().st_size for path in files)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be created ({error.strerror}); give another folder with --run") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder} cannot be written; give another folder with --run")


# The files that define a checkpoint; a run's own notes next to them (env.json, metrics) do not.
WEIGHTS = "*.safetensors"
CHECKPOINT_FILES = (
    "config.json", "adapter_config.json", "generation_config.json", "vlprm.json", "*processor*.json", "*token*.json",
    "tokenizer.model", "vocab.json", "merges.txt", "*.jinja", "chat_template.json",
)  # fmt: skip


def fingerprint(path: Path, weights: bool = True) -> str:
    """A hash of a file's bytes, a checkpoint folder's files (with or without its weights), or all files of another
    folder; for a download from the Hub, the hash of its commit. UserError if the path does not exist.

    The hash of a finished journal is in the `done.json` next to it, and holds while the file's size and time of change
    stay as they were."""
    if not path.exists():
        raise UserError(f"{path} does not exist; run the stage that makes it first")
    if path.is_file() and (known := _known_hash(path)):
        return known
    if path.parent.name == "snapshots" and _COMMIT.fullmatch(path.name):
        return path.name
    patterns = (*CHECKPOINT_FILES, *([WEIGHTS] if weights else []))
    names = {path}
    if path.is_dir():
        names = {file for pattern in patterns for file in path.glob(pattern)} or set(path.rglob("*"))
    digest = hashlib.sha256()
    for file in sorted(filter(Path.is_file, names)):
        name = file.name if file == path else str(file.relative_to(path))
        digest.update(name.encode() + bytes.fromhex(sha256_of(file)))
    return digest.hexdigest()[:16]


def _known_hash(path: Path) -> str:
    done = json_object(path.with_name(DONE))
    return str(done[path.name]) if done.get(SEEN, {}).get(path.name) == seen(path) else ""


def seen(path: Path) -> list[int]:
    """The size and the time of change of a file, by which a file that has not changed is known again."""
    known = path.stat()
    return [known.st_size, known.st_mtime_ns]


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's bytes, which are read in parts."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty without a file."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def environment(seed: int) -> dict[str, Any]:
    """Versions, commit and seed: what a result depends on in addition to the config."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "seed": seed,
    }


@contextmanager
def timed(folder: Path, stage: str) -> Iterator[None]:
    """Add the seconds that a stage takes to `seconds.json`, summed over all its runs. A user mistake found before the
    run was opened leaves no file."""
    started = time.time()
    try:
        yield
    finally:
        if (folder / CONFIG).exists():
            seconds = seconds_of(folder)
            seconds[stage] = round(seconds.get(stage, 0.0) + time.time() - started, 2)
            write_atomically(folder / SECONDS, json.dumps(seconds) + "\n")


def seconds_of(folder: Path) -> dict[str, float]:
    """Seconds by stage; empty if the program that made the folder did not record them."""
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
