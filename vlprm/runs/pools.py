"""Read the candidate pools that a run of eval.run stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vlprm.errors import UserError
from vlprm.runs.journal import iterate_finished, placed_records, record_at, refuse_unfinished
from vlprm.schema import Solution, StepScore, from_json

T = TypeVar("T")
RECORDS = "records.jsonl"
PARAMETERS = "parameters.json"  # number of parameters of each model
POOL = "pool"  # the `method` of records with a pool of whole solutions


@dataclass(frozen=True)
class StoredCandidate:
    """A candidate of a pool, whether its answer is right (None: no result), and the scores of its steps (none without a
    reward model; None for a step that could not be scored)."""

    solution: Solution
    right: bool | None
    scores: tuple[StepScore | None, ...]


def stored_pools(folder: Path) -> list[tuple[str, list[Solution]]]:
    """The id and the candidates of each problem, in the order of the run; a failed problem has none. UserError if the
    run has not ended or has no pool."""
    return _pools(folder, lambda stored: from_json(Solution, stored["solution"]))


def stored_candidates(folder: Path) -> list[tuple[str, list[StoredCandidate]]]:
    """As `stored_pools`, with rewards and whether answers are right."""
    return _pools(folder, _candidate)


def _candidate(stored: Mapping[str, Any]) -> StoredCandidate:
    scores = tuple(score and StepScore(**score) for score in stored["scores"])
    return StoredCandidate(from_json(Solution, stored["solution"]), stored["right"], scores)


def _pools(folder: Path, read: Callable[[Mapping[str, Any]], T]) -> list[tuple[str, list[T]]]:
    """What `read` makes of the candidates of each problem."""
    records = iterate_finished(folder / RECORDS, "eval.run")
    pools = [(r["at"], r["problem"], list(map(read, r["candidates"]))) for r in records if r["method"] == POOL]
    if not pools:
        raise _no_pool(folder)
    return [(problem, candidates) for _, problem, candidates in sorted(pools, key=lambda pool: pool[0])]


@dataclass(frozen=True)
class Sampled:
    """The first candidates of a stored pool. `read`: tokens that the policy read for all of them, the prompt
    included."""

    solutions: tuple[Solution, ...]
    read: int


class StoredPool:
    """The candidates of a finished run, by benchmark and problem; each is read from the file when it is asked for."""

    def __init__(self, folder: Path) -> None:
        """UserError if the run has not ended or has no pool."""
        refuse_unfinished(folder / RECORDS, "eval.run")
        self._folder, self._places, digests = folder, dict[tuple[str, str], int](), []
        for place, record in placed_records(folder / RECORDS):
            if record["method"] == POOL and not record["failure"]:
                self._places[record["benchmark"], record["problem"]] = place
                digests.append(_digest(record))
        if not digests:
            raise _no_pool(folder)
        self.checksum = _joined(digests)

    def first(self, benchmark: str, problem: str, n: int) -> Sampled:
        """The first `n` candidates of a problem. UserError if the pool has fewer."""
        place = self._places.get((benchmark, problem))
        record = {"candidates": []} if place is None else record_at(self._folder / RECORDS, place)
        solutions = [from_json(Solution, stored["solution"]) for stored in record["candidates"]]
        if len(solutions) < n:
            raise UserError(
                f"{self._folder} has {len(solutions)} candidates for {problem} of {benchmark}, fewer than search.n"
                f" {n}; use a smaller search.n or another pool"
            )
        prompt = record["cost"]["policy_read"] - sum(solution.read for solution in solutions)
        return Sampled(tuple(solutions[:n]), prompt + sum(solution.read for solution in solutions[:n]))


def checksum_of(folders: Iterable[Path]) -> str:
    """The checksum of the candidates of finished runs that are shards of one: 16 hexadecimal digits. It depends on the
    problems and the texts and order of their candidates, not on scores, times or the order of completion."""
    return _joined(
        _digest(record)
        for folder in folders
        for record in iterate_finished(folder / RECORDS, "eval.run")
        if record["method"] == POOL and not record["failure"]
    )


def _digest(record: Mapping[str, Any]) -> bytes:
    named: Sequence[Any] = (record["benchmark"], record["problem"], [c["solution"] for c in record["candidates"]])
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).digest()


def _joined(digests: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()[:16]


def _no_pool(folder: Path) -> UserError:
    return UserError(f"{folder} has no pool of candidates; run eval.run with best_of_n or self_consistency")
