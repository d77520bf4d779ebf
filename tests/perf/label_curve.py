"""What step labels are worth by their number, where the reward model starts from the policy's own weights.

    python -m tests.perf.label_curve                                        (three to four hours on a core)
    python -m tests.perf.label_curve --sizes 100 300 --each 20              # a look at small size, ten minutes

For each number of problems, trees of the built-in policy are grown, judged and labelled by the demo's recipes, and
three reward models are trained on them for two passes: the head alone, adapters, and all text layers. All choose among
the same pools of eight candidates of test problems, next to what needs no label: the policy's likelihood and the vote.
Differences are paired by problem, with 95% bootstrap intervals. The head alone is trained with three seeds on the most
problems, which is what the claims read, and with one elsewhere. `samples` is the number of candidates from which the
reward model's choice is as good as a vote among eight. Finished work is not repeated, and a killed run continues.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from eval.run import main as evaluate
from eval.runs import measures
from eval.runs.config import RunConfig
from eval.runs.curves import accuracy_curves
from eval.runs.pools import Pool
from eval.runs.results import read_runs
from tests.perf.datasets import labelled
from tests.perf.results import FOLDER, Curves, Effect, interval_over_seeds, write_result
from train.prm import main as train
from train.reward.config import PrmConfig
from vlprm.runs.config import parse
from vlprm.serving.config import ModelConfig

POLICY, AGGREGATION = "builtin/policy", "min"
SIZES, EACH = (100, 300, 1_000, 3_000, 10_000), 100  # problems of trees, and test problems of each family
ARMS: dict[str, dict[str, Any]] = {
    "head": {},
    "adapters": {"surprise": False, "freeze": ("vision", "projector"), "lora_rank": 8, "learning_rate": 3e-4},
    "text layers": {"surprise": False, "freeze": ("vision", "projector"), "learning_rate": 1e-4},
}
CLAIMED, SEEDS = "head", 3  # the arm whose effects the claims read, and its seeds at the largest size
OURS, RIVALS, LIKELIHOOD = f"prm_{AGGREGATION}", ("likeliest", "majority", "weighted_majority"), "head"
CURVED = ("likeliest", "majority")  # the rivals that stand in the curves


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--each", type=int, default=EACH)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    asked = parser.parse_args()
    rows = [
        measured(size, arm, asked.each, asked.seeds if (size, arm) == (max(asked.sizes), CLAIMED) else 1)
        for size in asked.sizes
        for arm in ARMS
    ]
    most = [row for row in rows if row["trees"] == max(asked.sizes)]
    best = max(most, key=lambda row: row["best_of_8"])
    gain = best["best_of_8_less"]["likeliest"]
    headline = {"points_over_likelihood": (gain["points"], 10.0)}
    write_result("label_curve", rows, headline, effects(rows), {arm: curves(rows, arm) for arm in ARMS})


def effects(rows: Sequence[dict[str, Any]]) -> dict[str, Effect]:
    """What the claims compare: their arm at the largest size."""
    (last,) = (row for row in rows if row["arm"] == CLAIMED and row["trees"] == max(row["trees"] for row in rows))
    return {
        f"reward model less {rival}": Effect(less["points"], *less["ci"], "points", last["problems"], last["seeds"])
        for rival, less in last["best_of_8_less"].items()
    }


def curves(rows: Sequence[dict[str, Any]], arm: str) -> Curves:
    """How often each selector is right with this arm's reward model, by the number of problems of trees."""
    of_arm = [row for row in rows if row["arm"] == arm]
    return {name: {str(row["trees"]): row["accuracy"][name] for row in of_arm} for name in (OURS, *CURVED)}


def measured(size: int, arm: str, each: int, seeds: int) -> dict[str, Any]:
    """The row of an arm, trained on trees of this number of problems."""
    runs = [chosen(size, arm, each, seed) for seed in range(seeds)]
    pools = [pool for of_seed, _ in runs for pool in of_seed]
    right_SP = {name: np.array([of[name] for _, of in runs]) for name in runs[0][1]}
    ours_SP = right_SP[OURS]
    # The likelihood is that of the policy, whose weights the head alone leaves as they are.
    likeliest_P = chosen(size, LIKELIHOOD, each, 0)[1]["likeliest"]
    right_SP["likeliest"] = np.broadcast_to(likeliest_P, ours_SP.shape)
    row = {
        "trees": size,
        "arm": arm,
        "problems": ours_SP.shape[1],
        "seeds": seeds,
        "best_of_8": float(ours_SP.mean()),
        "accuracy": {
            name: {"accuracy": float(right_SP[name].mean()) / 100, "ci": interval_over_seeds(right_SP[name] / 100)}
            for name in (OURS, *RIVALS, "random", "oracle")
        },
        "best_of_8_less": {
            name: {
                "points": float((ours_SP - right_SP[name]).mean()),
                "ci": interval_over_seeds(ours_SP - right_SP[name]),
            }
            for name in RIVALS
        },
        "samples": samples_for(pools, float(right_SP["majority"].mean())),
        "step_auroc": measures.steps(pools, AGGREGATION)["auroc"],
    }
    print(row, flush=True)
    return row


@cache
def chosen(size: int, arm: str, each: int, seed: int) -> tuple[list[Pool], dict[str, Any]]:
    """The pools of test problems, scored by an arm's reward model, and how often each selector is right, in per cent by
    problem."""
    folder = FOLDER / "label_curve" / str(size)
    prm = folder / (arm.replace(" ", "_") + (f"_{seed}" if seed else ""))
    config = parse(PrmConfig, ["--config", "configs/demo/prm.yaml"])
    dataset = labelled(folder, "--problems", str(size))
    train(replace(config, dataset=dataset, run=prm, seed=config.seed + seed, backbone=POLICY, **ARMS[arm]))
    pools = pools_of(prm, each)
    right = measures.rightness(pools, AGGREGATION)
    return pools, {name: 100 * np.array(values) for name, values in right.items()}


def pools_of(prm: Path, each: int) -> list[Pool]:
    """The candidates of the test problems, which are sampled once, with this reward model's scores."""
    demo = parse(RunConfig, ["--config", "configs/demo/eval.yaml"])
    sets = tuple(replace(problems, problems=each) for problems in demo.benchmarks)
    sampled, run = FOLDER / "label_curve" / f"pool_{each}", prm.parent / f"{prm.name}_eval_{each}"
    asked = replace(demo, reward_model=None, whole=False, benchmarks=sets)
    evaluate(replace(asked, run=sampled, methods=("self_consistency",)))
    evaluate(replace(asked, run=run, reward_model=ModelConfig(str(prm)), pool=sampled))
    return list(read_runs([run], pools=True, steps=True)[0].pools.values())


def samples_for(pools: Sequence[Pool], accuracy: float) -> int | None:
    """The least number of candidates from which best-of-n reaches this accuracy in per cent; None if eight do not."""
    curve = accuracy_curves(pools, AGGREGATION, scored=True)[OURS]
    enough = [int(n) for n, point in curve.items() if 100 * point["accuracy"] >= accuracy]
    return min(enough, default=None)


if __name__ == "__main__":
    main()
