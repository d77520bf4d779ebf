"""Guided search by correctness, by value, and by both, with one reward model that gives the two.

    make demo && make bench NAME=value_in_beams

The reward models are those of the row `self: value` of `tests.perf.label_schemes` at three seeds, which are trained
unless they are there. Step beams of the demo's policy, four wide, are kept by the reward of the latest step:
(1 - weight) of `correct` and weight of the value. Differences are paired by problem and seed, with 95% bootstrap
intervals over both. About half an hour on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from eval.run import main as evaluate
from eval.runs.config import RunConfig
from eval.runs.results import read_runs
from tests.perf.label_schemes import SCHEMES, trained
from tests.perf.results import FOLDER, Array, Effect, interval_over_seeds, points, write_result
from vlprm.runs.config import parse
from vlprm.scoring.config import ScorerConfig
from vlprm.serving.config import ModelConfig

SCHEME, METHOD = "self: value", "step_beam"
WEIGHTS = (0.0, 0.5, 1.0)
EACH, SEEDS = 100, 3  # problems of each family


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--each", type=int, default=EACH)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    asked = parser.parse_args()
    right = {
        weight: np.array([rightness(weight, seed, asked.each) for seed in range(asked.seeds)]) for weight in WEIGHTS
    }
    rows = [{"value": w, "accuracy": float(of.mean()), "ci": interval_over_seeds(of)} for w, of in right.items()]
    for row in rows:
        print(row)
    found = effects(right)
    write_result("value_in_beams", rows, {key: (effect.value, 0.0) for key, effect in found.items()}, found)


def effects(right: Mapping[float, Array]) -> dict[str, Effect]:
    """What the claims compare: searches that weigh the value, less one that ranks by the probability of correct."""
    return {f"weight {w:g} less correctness": points(right[w] - right[0.0]) for w in WEIGHTS[1:]}


def rightness(weight: float, seed: int, each: int) -> Array:
    """(P,) how often the search's choice is right with this weight of the value, in per cent."""
    prm = trained(SCHEME, SCHEMES[SCHEME], seed)
    run = FOLDER / "value_in_beams" / str(seed) / f"{weight:g}-{each}"
    demo = parse(RunConfig, ["--config", "configs/demo/eval.yaml"])
    sets = tuple(replace(problems, problems=each) for problems in demo.benchmarks)
    search = replace(demo.search, aggregation="last", seed=demo.search.seed + seed)
    evaluate(
        replace(
            demo, run=run, reward_model=ModelConfig(str(prm)), whole=False, methods=(METHOD,), benchmarks=sets,
            search=search, scorer=ScorerConfig(value=weight),
        )
    )  # fmt: skip
    values = read_runs([run])[0].rows[METHOD]
    return 100 * np.array([of[problem] for _, of in sorted(values.items()) for problem in sorted(of)])


if __name__ == "__main__":
    main()
