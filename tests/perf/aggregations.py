"""How the rewards of its steps become the reward of a solution: best of N by each rule, on the demo's pools.

    make demo && make bench NAME=aggregations

Both worlds of `tests.perf.vote` choose among the same candidates by the same step rewards. The minimum is compared with
each other rule, paired by problem, with 95% bootstrap intervals over problems. A few seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np

from eval.runs import measures
from eval.runs.results import read_runs
from tests.perf.datasets import DEMO
from tests.perf.results import Effect, points, write_result
from vlprm.metrics import bootstrap_interval
from vlprm.schema import Aggregation

RUNS = {"stranger": DEMO / "eval", "self": DEMO / "self/eval"}


def main() -> None:
    rows: list[dict[str, Any]] = []
    effects: dict[str, Effect] = {}
    for world, run in RUNS.items():
        right = rightness(run)
        for rule, values in right.items():
            best = {"best_of_n": float(values.mean()), "ci": bootstrap_interval(values)}
            rows.append({"world": world, "rule": rule, **best})
            print(rows[-1])
            if rule != "min":
                effects[f"{world}, min less {rule}"] = points(right["min"] - values)
    write_result("aggregations", rows, {key: (effect.value, 0.0) for key, effect in effects.items()}, effects)


def rightness(run: Path) -> dict[Aggregation, Any]:
    """How often best of N is right by each rule, in per cent by problem."""
    pools = list(read_runs([run], pools=True, steps=True)[0].pools.values())
    rules: tuple[Aggregation, ...] = get_args(Aggregation)
    return {rule: 100 * np.array(measures.rightness(pools, rule)[f"prm_{rule}"]) for rule in rules}


if __name__ == "__main__":
    main()
