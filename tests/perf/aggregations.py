"""How the rewards of its steps become the reward of a solution: best of N by each rule, on the demo's pools.

    make demo && make bench NAME=aggregations

The reward models of both worlds (`tests.perf.worlds`), at three seeds, choose among the same candidates. The minimum
is compared with each other rule, paired by problem and seed, with 95% bootstrap intervals over both. A few seconds, and
ten minutes on a core for the reward models of two more seeds unless `tests.perf.label_schemes` has trained them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from eval.runs import measures
from eval.runs.pools import Pool
from tests.perf import worlds
from tests.perf.results import Array, Effect, interval_over_seeds, points, write_result
from vlprm.schema import Aggregation


def main() -> None:
    rows: list[dict[str, Any]] = []
    effects: dict[str, Effect] = {}
    for world in worlds.RUNS:
        right = rightness(worlds.scored_pools(world))
        for rule, right_SP in right.items():
            best = {"best_of_n": float(right_SP.mean()), "ci": interval_over_seeds(right_SP)}
            rows.append({"world": world, "rule": rule, **best})
            print(rows[-1])
            if rule != "min":
                effects[f"{world}, min less {rule}"] = points(right["min"] - right_SP)
    write_result("aggregations", rows, {key: (effect.value, 0.0) for key, effect in effects.items()}, effects)


def rightness(runs: Sequence[list[Pool]]) -> dict[Aggregation, Array]:
    """(S, P) how often best of N is right by each rule, in per cent. `runs` has the pools of each seed."""
    rules: tuple[Aggregation, ...] = get_args(Aggregation)
    return {rule: 100 * np.array([measures.rightness(of, rule)[f"prm_{rule}"] for of in runs]) for rule in rules}


if __name__ == "__main__":
    main()
