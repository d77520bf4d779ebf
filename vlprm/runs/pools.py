"""Read the candidate pools that a run of eval.run stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vlprm.errors import UserError
from vlprm.runs.journal import iterate_finished
from vlprm.schema import Solution, StepScore, from_json

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
    return [(problem, [one.solution for one in pool]) for problem, pool in stored_candidates(folder)]


def stored_candidates(folder: Path) -> list[tuple[str, list[StoredCandidate]]]:
    """As `stored_pools`, with rewards and whether answers are right."""
    pools = sorted(_pools(folder), key=lambda pool: pool[0])
    if not pools:
        raise UserError(f"{folder} has no pool of candidates; run eval.run with best_of_n or self_consistency")
    return [(problem, candidates) for _, problem, candidates in pools]


def _pools(folder: Path) -> Iterator[tuple[int, str, list[StoredCandidate]]]:
    for record in iterate_finished(folder / RECORDS, "eval.run"):
        if record["method"] == POOL:
            candidates = [
                StoredCandidate(
                    from_json(Solution, c["solution"]),
                    c["right"],
                    tuple(score and StepScore(**score) for score in c["scores"]),
                )
                for c in record["candidates"]
            ]
            yield record["at"], record["problem"], candidates
