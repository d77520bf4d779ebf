"""What pairs of next steps from the demo's search trees teach the policy that grew the trees.

    make demo && python -m tests.perf.policy_pairs
    python -m tests.perf.policy_pairs --plan              # the runs and their CPU-hours
    python -m tests.perf.policy_pairs --small             # a look

Each arm trains the built-in policy on search trees and solves the same new problems. Step-wise DPO on pairs by the
judge's verdicts and by fused labels; with random labels: each pair turned round by chance; and SFT on the trees' right
paths. Trees of `omega` have few pairs by value, because few siblings have rollouts of their own, so pairs by rollout
values come from trees of `flat` that cost as many tokens. Accuracy is the mean over sampled solutions; a solution
without an answer is no result. The table has the base policy and its vote of eight. Gains are paired by problem and
seed, with 95% intervals over both. Finished training and solving is not repeated.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.perf.datasets import OF_DEMO, flat_trees
from tests.perf.policy_arms import VOTES, Job, Measures, arguments, effect_of, gain, mean_of, sized, solved, table, tell
from tests.perf.results import FOLDER, Effect, write_result
from train import dpo, sft
from train.policy.config import DpoConfig, PairsConfig, SftConfig
from train.policy.pairs import PairTree, pairs_of, write_pairs
from vlprm.data.dataset import iterate_rows, row_paths
from vlprm.model.checkpoint_config import CHECKPOINT_FILE
from vlprm.runs.config import parse
from vlprm.tasks import TASKS

SIZES = {"problems": (512, 12), "seeds": (3, 1), "each": (4, 2), "trees": (100_000, 40)}
POLICY, WITHOUT_ZOOMS = "builtin/policy", ("count_grid", "pattern", "chart", "figure")
VALUE, JUDGE, LABEL, RANDOM, RIGHT_PATHS = (
    "pairs by value", "pairs by judge", "pairs by label", "random labels", "right paths (SFT)",
)  # fmt: skip
FUSED = {"by": "label", "better": 0.75, "worse": 0.25}
CERTAIN: dict[str, dict[str, Any]] = {JUDGE: {"by": "judge"}, LABEL: FUSED, RANDOM: FUSED}
ARMS = (VALUE, JUDGE, LABEL, RANDOM, RIGHT_PATHS)
# CPU-seconds: training (reference and one epoch on the demo's trees), and one solution.
TRAINING, SOLUTION = 40.0, 0.012


def main() -> None:
    parser = arguments(str(__doc__), SIZES)
    parser.add_argument("--dataset", type=Path, default=OF_DEMO)
    asked = sized(parser.parse_args(), SIZES)
    if asked.plan:
        solving = asked.problems * SOLUTION
        of_base = [Job("base, vote of eight", VOTES * solving)] * asked.seeds
        tell([*of_base, *(Job(arm, TRAINING + asked.each * solving) for arm in ARMS for _ in range(asked.seeds))])
        return
    seeds = range(asked.seeds)
    runs = {"base": [held_out(POLICY, folder_of("base", s, asked), VOTES, s, asked) for s in seeds]}
    learnt: dict[str, dict[str, int]] = {}
    for arm in ARMS:
        for seed in seeds:
            folder = folder_of(arm, seed, asked)
            learnt[arm] = trained(arm, folder, seed, asked)
            runs.setdefault(arm, []).append(held_out(folder / "policy", folder, asked.each, seed, asked))
    rows = rows_of(runs, learnt)
    for row in rows:
        print(row)
    of = {row["arm"]: row for row in rows}
    headline = {
        "points": (of[LABEL]["gain"], 4.0),
        "points_over_right_paths": (of[LABEL]["gain"] - of[RIGHT_PATHS]["gain"], 0.0),
        "points_of_random_labels": (of[RANDOM]["gain"], 0.0),
    }
    write_result("policy_pairs", rows, headline, effects(rows, asked.problems, asked.seeds))


def effects(rows: Sequence[dict[str, Any]], problems: int, seeds: int) -> dict[str, Effect]:
    """What the claims compare: pairs by label, and right paths."""
    of = {row["arm"]: row for row in rows}
    gains = {
        "pairs less base": of[LABEL],
        "pairs less random labels": of[LABEL]["over_random_labels"],
        "right paths less base": of[RIGHT_PATHS],
    }
    return {name: effect_of(gained, problems, seeds) for name, gained in gains.items()}


def folder_of(arm: str, seed: int, asked: argparse.Namespace) -> Path:
    size = f"{asked.problems}-{asked.each}-{asked.trees}"
    return FOLDER / "policy_pairs" / size / f"{arm.replace(' ', '_')}-{seed}"


def held_out(policy: str | Path, folder: Path, each: int, seed: int, asked: argparse.Namespace) -> Measures:
    """How a policy solves the new problems."""
    families = [TASKS[name] for name in WITHOUT_ZOOMS]
    n = len(families)
    problems = [families[i % n].problem("test", 5000 + i // n) for i in range(asked.problems)]
    return solved(policy, problems, each, 1 + seed, folder / "solved.json")


def rows_of(runs: dict[str, list[Measures]], learnt: dict[str, dict[str, int]]) -> list[dict[str, Any]]:
    """A row per arm; the base's vote is a row of its own."""
    right = {arm: table(of_seeds, "right") for arm, of_seeds in runs.items()}
    vote = table(runs["base"], "vote")
    return [
        {"arm": "base", "accuracy": mean_of(right["base"])},
        {"arm": f"base, vote of {VOTES}", "accuracy": mean_of(vote), **gain(vote, right["base"])},
        *(
            {
                "arm": arm,
                "accuracy": mean_of(right[arm]),
                **gain(right[arm], right["base"]),
                "over_random_labels": gain(right[arm], right[RANDOM]),
                "answered": mean_of(table(runs[arm], "answered")),
                **learnt[arm],
            }
            for arm in ARMS
        ),
    ]


def trained(arm: str, folder: Path, seed: int, asked: argparse.Namespace) -> dict[str, int]:
    """Train an arm, unless it is done; what it learnt from, in numbers."""
    run = folder / "policy"
    if arm == RIGHT_PATHS:
        if not (run / CHECKPOINT_FILE).exists():
            config = parse(SftConfig, ["--config", "configs/policy/right_paths.yaml"])
            sft.main(replace(config, dataset=asked.dataset, run=run, seed=seed))
        return {}
    counts: Counter[str] = Counter()
    trees = list(trees_of(arm, asked, seed, counts))
    if not (run / CHECKPOINT_FILE).exists():
        write_pairs(folder / "pairs.parquet", trees)
        config = parse(DpoConfig, ["--config", "configs/policy/step_dpo.yaml"])
        dpo.main(replace(config, pairs=folder / "pairs.parquet", run=run, seed=seed))
    return dict(counts)


def trees_of(arm: str, asked: argparse.Namespace, seed: int, counts: Counter[str]) -> Iterator[PairTree]:
    config = replace(parse(PairsConfig, ["--config", "configs/policy/pairs.yaml"]), **CERTAIN.get(arm, {}))
    rng = random.Random(seed)
    for number, row in enumerate(iterate_rows(flat_trees() if arm == VALUE else asked.dataset)):
        if number >= asked.trees:
            return
        paths = row_paths(row)
        tree = pairs_of(paths, config, counts) if paths and paths[0].problem.task in WITHOUT_ZOOMS else None
        if tree is not None:
            yield turned_by_chance(tree, rng) if arm == RANDOM else tree


def turned_by_chance(tree: PairTree, rng: random.Random) -> PairTree:
    """The tree with each pair, by chance, in the wrong order."""
    turned = [
        replace(pair, better=pair.worse, worse=pair.better) if rng.random() < 0.5 else pair for pair in tree.pairs
    ]
    return replace(tree, pairs=tuple(turned))


if __name__ == "__main__":
    main()
