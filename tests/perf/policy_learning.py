"""Step rewards against the outcome alone, at equal rollouts: right answers, and solutions with every step right.

    python -m tests.perf.policy_learning
    python -m tests.perf.policy_learning --rounds 2 --seeds 1 --problems 8    # a look at small size

The policy is the built-in one, the reward model the demo's (`make demo`). Each arm is a recipe of configs/policy, on
one family without zooms; a value is the mean over all validations of a run, and all arms see the same validation
problems.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from tests.perf.results import FOLDER, write_result
from train import grpo
from train.policy.grpo_config import GrpoConfig, ValidationConfig
from vlprm.errors import UserError
from vlprm.runs.config import parse

OUTCOME, PROCESS = "grpo", ("pav", "ps_grpo", "veri_gate", "step_grpo")
ARMS = (OUTCOME, "tree_rl", *PROCESS, "prm_minimum", "true_steps")
MEASURES = ("validation_right", "validation_all_right")


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    parser = argparse.ArgumentParser()
    for name, default in (("rounds", 20), ("seeds", 3), ("problems", 512)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--family", default="count_grid")
    parser.add_argument("--prm", default="runs/demo/prm")
    asked = parser.parse_args()
    rows = [measured(arm, seed, asked) for seed in range(asked.seeds) for arm in ARMS]
    write_result("policy_learning", rows, headline(rows))


def measured(arm: str, seed: int, asked: argparse.Namespace) -> dict[str, Any]:
    """One run of an arm; a finished run is read."""
    run = FOLDER / "policy_learning" / f"{asked.family}-{asked.rounds}-{asked.problems}" / f"{arm}-{seed}"
    config = parse(GrpoConfig, ["--config", f"policy/{arm}", "--run", str(run)])
    wanted = ValidationConfig(asked.problems, every=max(1, asked.rounds // 5), fall=0.99)  # every arm goes to its end
    config = dataclasses.replace(
        config,
        tasks=(asked.family,),
        rounds=asked.rounds,
        seed=seed,
        validation=wanted,
        first=100_000 * (1 + seed),  # other problems for each seed
        prm=config.prm and dataclasses.replace(config.prm, checkpoint=asked.prm),
        rollouts=dataclasses.replace(config.rollouts, problems=16, each=8),
    )
    try:
        grpo.main(config)
    except UserError as error:
        return {"arm": arm, "seed": seed, "stopped": str(error)}
    lines = [json.loads(line) for line in (run / grpo.METRICS).read_text().splitlines()]
    return {"arm": arm, "seed": seed, "rollouts": sum(line.get("rollouts", 0) for line in lines), **summary(lines, run)}


def summary(lines: Sequence[dict[str, Any]], run: Path) -> dict[str, Any]:
    """The curves of validation, their means after the first round, and the last gap of the reward model."""
    curves = {name: [line[name] for line in lines if name in line] for name in MEASURES}
    gaps = [line["prm_less_truth"] for line in lines if "prm_less_truth" in line]
    seconds = json.loads((run / "seconds.json").read_text())["grpo"]
    return {
        **curves,
        **{f"mean_{name}": fmean(curve[1:]) for name, curve in curves.items()},
        "prm_less_truth": gaps[-1] if gaps else None,
        "seconds": seconds,
    }


def headline(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Gains of the recipes with a reward model over the outcome alone, at equal rollouts."""

    def mean(arms: Sequence[str], name: str) -> float:
        return fmean(row[f"mean_{name}"] for row in rows if row["arm"] in arms and "stopped" not in row)

    return {
        f"process_minus_outcome_{name.removeprefix('validation_')}": (mean(PROCESS, name) - mean((OUTCOME,), name), 0.0)
        for name in MEASURES
    }


if __name__ == "__main__":
    main()
