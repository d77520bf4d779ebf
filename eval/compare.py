"""Compare reward models with the vote, on one stored pool of candidates.

    python -m eval.compare --runs '[runs/demo/eval]' --run runs/compare

The vote, the vote weighted by rewards, best of N, a reward model that decides only where candidates disagree, and the
likelihood choose among the same candidates. Tables give accuracy with paired differences to the vote, by agreement of
the candidates, at equal tokens and FLOPs, the correlation of errors, and longer chains against more chains. Two reward
models are compared on one pool: `eval.run --pool` scores the candidates of another run, and runs with other candidates
are refused by checksum. Writes `results.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from eval.compared.choosers import ORACLE, choosers_of
from eval.compared.lengths import by_length, limits_and_chains, longer_half
from eval.compared.measures import accuracy_rows, equal_cost, oracle_of, shared_errors, strata, values_of
from eval.compared.text import print_comparison
from eval.runs.pools import Pool
from eval.runs.results import Key, Run, read_runs
from eval.tables.config import CompareConfig
from vlprm.errors import UserError
from vlprm.runs.config import dump, run
from vlprm.runs.folder import open_run, write_atomically
from vlprm.runs.pools import RECORDS, checksum_of
from vlprm.search.tokens import UNITS


def main(config: CompareConfig) -> None:
    """Write `results.json` and print the tables."""
    runs = read_runs(config.runs, "curve", pools=True)
    checksum = shared_checksum(runs, config.checksum)
    results = {"checksum": checksum, **compared(runs, config.n, config.threshold)}
    open_run(config.run, dump(config), 0, [folder / RECORDS for folder in config.runs])
    write_atomically(config.run / "results.json", json.dumps(results, indent=2) + "\n")
    print_comparison(results)


def shared_checksum(runs: Sequence[Run], expected: str) -> str:
    """The checksum of the pool of all runs. UserError if one has other candidates, or the checksum is not the expected
    one."""
    found = {one.label: checksum_of(one.folders) for one in runs}
    first = expected or next(iter(found.values()))
    for label, checksum in found.items():
        if checksum != first:
            raise UserError(
                f"the run {label} has the pool {checksum}, not {first}; score the candidates of one run with"
                " `eval.run --pool`"
            )
    return first


def compared(runs: Sequence[Run], n: int, threshold: float) -> dict[str, Any]:
    """The content of `results.json`. UserError if a problem has fewer than `n` candidates."""
    pools = dict(runs[0].pools)
    n = n or min(map(size_of, pools.values()), default=0)
    refuse_small(pools, n)
    choosers = choosers_of(runs, threshold)
    values = {chooser.title: values_of(chooser, list(pools), n) for chooser in choosers}
    values[ORACLE] = oracle_of(pools, n)
    units = UNITS if all(one.parameters is not None for one in runs) else UNITS[:1]
    return {
        "problems": len(pools),
        "n": n,
        "no_answer": sum(right is None for pool in pools.values() for right in pool.right[:n]),
        "rows": accuracy_rows(choosers, values, n),
        "strata": strata(pools, values, n),
        "equal_cost": equal_cost(choosers, values, n, units),
        "shared_errors": shared_errors(pools, values, n),
        "lengths": {
            "quarters": by_length(pools, n),
            "longer_half": longer_half(pools, n),
            **limits_and_chains(pools, n),
        },
    }


def size_of(pool: Pool) -> int:
    """The number of candidates."""
    return len(pool.candidates)


def refuse_small(pools: Mapping[Key, Pool], n: int) -> None:
    """UserError without a problem, or for one with fewer than `n` candidates."""
    if not n:
        raise UserError("the runs have no problem with candidates; run eval.run with best_of_n")
    small = next((f"{key[1]} ({size_of(pool)})" for key, pool in pools.items() if size_of(pool) < n), None)
    if small:
        raise UserError(f"n is {n}, but a problem has fewer candidates: {small}; use a smaller n or a larger pool")


if __name__ == "__main__":
    run(main, CompareConfig)
