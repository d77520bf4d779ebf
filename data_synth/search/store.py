"""The run folder of a search. Later stages read its trees one at a time, in the run's order.

    RUN/trees.jsonl                    one record per problem; in a run of n shards, RUN/shard-I-of-N/trees.jsonl
    RUN/images/                        the problems' images, each stored once under the hash of its bytes

A record has `key` (problem id), `at` (index in the run), and either `problem` and `tree`, or, for a problem that could
not be searched, `failure` (one word) and `said` (a sentence). Failed problems are counted but not labelled.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vlprm.errors import UserError
from vlprm.images import content_hash
from vlprm.policy import OUTAGES
from vlprm.runs.folder import CONFIG, write_atomically
from vlprm.runs.index import FAILED, UNANSWERED, Note, Summary, entries
from vlprm.runs.journal import record_at, refuse_unfinished
from vlprm.runs.resume import result_settings
from vlprm.schema import Problem, StepTree, from_json, to_json

STAGE = "data_synth.trees"
TREES, IMAGES = "trees.jsonl", "images"
FIXED = ("unit",)  # it decides which problems a shard has
_SHARD = re.compile(r"shard-(\d+)-of-(\d+)")


@dataclass(frozen=True)
class Searched:
    """A problem with its tree."""

    problem: Problem
    tree: StepTree


@dataclass(frozen=True)
class Failed:
    """A problem that cannot be searched: the cause in one word, and a sentence."""

    problem_id: str
    failure: str
    said: str


Outcome = Searched | Failed


def tree_record(at: int, searched: Searched, images: Path) -> dict[str, Any]:
    """The record of a tree. Writes the problem's images into the folder unless they are already there."""
    problem = searched.problem
    plain = {**to_json(problem), "images": [_keep(image, images) for image in problem.images]}
    return {"key": problem.id, "at": at, "problem": plain, "tree": to_json(searched.tree)}


def failure_record(at: int, failed: Failed) -> dict[str, Any]:
    """The record of a problem that cannot be searched."""
    return {"key": failed.problem_id, "at": at, "failure": failed.failure, "said": failed.said}


def _note(record: Mapping[str, Any]) -> Note:
    """The note about a record: its index in the run, and the numbers of a tree that reports sum up."""
    if "failure" in record:
        return {"at": record["at"], FAILED: {record["failure"]: 1}}
    tree, root = record["tree"], record["tree"]["root"]
    return {
        "at": record["at"],
        "rollouts": tree["rollouts"],
        "steps": len(tree["nodes"]),
        "mixed": 0 < root["mc_correct"] < root["mc_valid"],
        "failed_roots": root["mc_total"] - root["mc_valid"],
        UNANSWERED: not OUTAGES.isdisjoint(tree["stops"]),
    }


SUMMARY = Summary("trees@1", _note)


def searched(record: Mapping[str, Any], images: Path) -> Searched:
    """Read a record of `tree_record`. UserError if an image is missing or changed."""
    shown = [_kept(name, images) for name in record["problem"]["images"]]
    problem = from_json(Problem, {**record["problem"], "images": []})
    return Searched(
        Problem(**{**vars(problem), "images": tuple(shown)}),
        from_json(StepTree, record["tree"]),
    )


class TreeRun:
    """The trees of a finished run folder, sharded or not. Iteration yields `Searched` in the run's order, one in memory
    at a time. `failures` maps the ids of problems without a tree to (cause, message).

    UserError if a shard is missing or not finished, or if two runs are mixed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = tree_files(folder)
        self.failures: dict[str, tuple[str, str]] = {}
        places = array("q")  # for each tree: its index in the run, the number of its file, its byte offset there
        self._keys: list[str] = []  # ids of the trees
        known: set[str] = set()
        for number, path in enumerate(self.files):
            refuse_unfinished(path, STAGE)
            for entry in entries(path, SUMMARY):
                if entry.key in known:
                    raise UserError(f"{folder} has two trees of {entry.key}; keep only the shards of one run")
                known.add(entry.key)
                if FAILED in entry.note:
                    record = record_at(path, entry.place)
                    self.failures[entry.key] = (record["failure"], record["said"])
                else:
                    self._keys.append(entry.key)
                    places.extend((entry.note["at"], number, entry.place))
        if not known:
            raise UserError(f"{folder} has no records; run `python -m {STAGE}` for at least one problem")
        self._places = np.frombuffer(places, dtype=np.int64).reshape(-1, 3)
        self._order = np.argsort(self._places[:, 0])
        self.ids = sorted(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Searched]:
        return self.every(1)

    def every(self, nth: int, but: Container[str] = ()) -> Iterator[Searched]:
        """Yield every n-th tree, except those of the problems `but`; the others are not read."""
        for at in range(0, len(self), nth):
            if self._keys[self._order[at]] not in but:
                yield self.tree(at)

    def tree(self, at: int) -> Searched:
        """The tree at this index in the run's order."""
        _, number, byte = map(int, self._places[self._order[at]])
        return searched(record_at(self.files[number], byte), self.folder / IMAGES)


def tree_files(folder: Path) -> list[Path]:
    """The files with the trees of a run folder. UserError if a shard is missing or runs are mixed."""
    shards = {path.name: _SHARD.fullmatch(path.name) for path in folder.glob("shard-*")}
    known = {(int(match[1]), int(match[2])) for match in shards.values() if match}
    if not known:
        return [folder / TREES]
    counts = {n for _, n in known}
    if len(counts) > 1 or (folder / TREES).exists():
        raise UserError(f"{folder} holds more than one run ({', '.join(sorted(shards))}); keep the shards of one run")
    (n,) = counts
    if missing := sorted(set(range(n)) - {i for i, _ in known}):
        raise UserError(f"{folder} lacks shard {missing[0]} of {n}; run `python -m {STAGE} --shard {missing[0]}/{n}`")
    parts = [folder / shard_name(i, n) for i in range(n)]
    configs = [_config_but_shard(part) for part in parts]
    if other := [part for part, config in zip(parts, configs, strict=True) if config != configs[0]]:
        raise UserError(f"{other[0]} was made with another config than {parts[0]}; use one config for all shards")
    return [part / TREES for part in parts]


def _config_but_shard(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    settings = yaml.safe_load(path.read_text()) if path.exists() else None
    return {name: value for name, value in (result_settings(settings, FIXED) or {}).items() if name != "shard"}


def shard_name(index: int, count: int) -> str:
    """Name of a shard's folder."""
    return f"shard-{index}-of-{count}"


def _keep(image: bytes, folder: Path) -> str:
    name = content_hash(image)
    if not (folder / name).exists():
        write_atomically(folder / name, image)
    return name


def _kept(name: str, folder: Path) -> bytes:
    path = folder / name
    data = path.read_bytes() if path.exists() else b""
    if content_hash(data) != name:
        raise UserError(f"{path} is missing or changed; copy the run's folder {IMAGES} again")
    return data
