"""Guided search by correctness, by value, and by both, with one reward model that gives the two.

    make demo && make bench NAME=value_in_beams

The reward model is that of the row `self: value` of `tests.perf.label_schemes`, which is trained unless it is there.
Step beams of the demo's policy, four wide, are kept by the reward of the latest step: (1 - weight) of `correct` and
weight of the value. Differences are paired by problem, with 95% bootstrap
intervals. About ten minutes on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from eval.run import main as evaluate
from eval.runs.config import RunConfig
from eval.runs.results import read_runs
from tests.perf.label_schemes import SCHEMES, trained
from tests.perf.results import FOLDER, Effect, points, write_result
from vlprm.metrics import bootstrap_interval
from vlprm.runs.config import parse
from vlprm.scoring.config import ScorerConfig
from vlprm.serving.config import ModelConfig

SCHEME, METHOD = "self: value", "step_beam"
WEIGHTS = (0.0, 0.5, 1.0)
EACH = 100  # problems of each family


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--each", type=int, default=EACH)
    asked = parser.parse_args()
    prm = trained(SCHEME, SCHEMES[SCHEME], 0)
    right = {weight: rightness(prm, weight, asked.each) for weight in WEIGHTS}
    rows = [{"value": w, "accuracy": float(of.mean()), "ci": bootstrap_interval(of)} for w, of in right.items()]
    for row in rows:
        print(row)
    found = effects(right)
    write_result("value_in_beams", rows, {key: (effect.value, 0.0) for key, effect in found.items()}, found)


def effects(right: Mapping[float, Any]) -> dict[str, Effect]:
    """What the claims compare: searches that weigh the value, less one that ranks by the probability of correct."""
    return {f"weight {w:g} less correctness": points(right[w] - right[0.0]) for w in WEIGHTS[1:]}


def rightness(prm: Path, weight: float, each: int) -> Any:
    """How often the search's choice is right with this weight of the value, in per cent by problem."""
    run = FOLDER / "value_in_beams" / f"{weight:g}-{each}"
    demo = parse(RunConfig, ["--config", "configs/demo/eval.yaml"])
    sets = tuple(replace(problems, problems=each) for problems in demo.benchmarks)
    search = replace(demo.search, aggregation="last")
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
