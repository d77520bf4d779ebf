"""Read the candidate pools that a run of eval.run stored."""

from __future__ import annotations

from pathlib import Path

from vlprm.errors import UserError
from vlprm.runs.journal import iterate_finished
from vlprm.schema import Solution, from_json

RECORDS = "records.jsonl"
PARAMETERS = "parameters.json"  # number of parameters of each model
POOL = "pool"  # the `method` of records with a pool of whole solutions


def stored_pools(folder: Path) -> list[tuple[str, list[Solution]]]:
    """The id and the candidates of each problem, in the order of the run; a failed problem has none. UserError if the
    run has not ended or has no pool."""
    records = iterate_finished(folder / RECORDS, "eval.run")
    pools = [
        (record["at"], record["problem"], [from_json(Solution, c["solution"]) for c in record["candidates"]])
        for record in records
        if record["method"] == POOL
    ]
    if not pools:
        raise UserError(f"{folder} has no pool of candidates; run eval.run with best_of_n or self_consistency")
    return [(problem, solutions) for _, problem, solutions in sorted(pools, key=lambda pool: pool[0])]
