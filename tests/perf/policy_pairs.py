"""What pairs of next steps from the demo's search trees teach the policy that grew the trees.

    make demo && python -m tests.perf.policy_pairs        (about ten minutes on two cores)

Each arm trains the built-in policy once on the same trees and solves the same new problems: step-wise DPO on the
pairs, on the same pairs with malformed better steps kept, on pairs whose order is random, and SFT on the trees' right
paths. Accuracy is the mean over sampled solutions; a solution without an answer is no result. Gains are paired by
problem, with 95% bootstrap intervals. Finished training is not repeated. `python -m tests.perf.policy_pairs DATASET
PROBLEMS` takes another dataset of data_synth.label and another number of problems.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.perf.results import FOLDER, write_result
from train import dpo, sft
from train.policy import pairs
from train.policy.config import DpoConfig, PairsConfig, SftConfig
from train.policy.pairs import PairTree, pairs_of, write_pairs
from vlprm.answers import is_correct
from vlprm.data.dataset import iterate_rows, row_paths
from vlprm.metrics import bootstrap_interval
from vlprm.model.loading import load_policy
from vlprm.policy import Request
from vlprm.policy.local import LocalPolicy
from vlprm.policy.rollout import rollouts
from vlprm.runs.config import parse
from vlprm.schema import Problem
from vlprm.tasks import TASKS

DATASET, PROBLEMS, EACH = Path("runs/demo/labels/dataset.parquet"), 512, 4
POLICY, WITHOUT_ZOOMS = "builtin/policy", ("count_grid", "pattern", "chart", "figure")
ARMS = ("pairs", "malformed kept", "random order", "right paths")


def main(dataset: Path = DATASET, count: int = PROBLEMS) -> None:
    families = [TASKS[name] for name in WITHOUT_ZOOMS]
    problems = [families[i % len(families)].problem("test", 5000 + i // len(families)) for i in range(count)]
    before = accuracies(POLICY, problems)
    rows = [{"arm": "before", "accuracy": float(np.nanmean(before))}]
    for arm in ARMS:
        folder = FOLDER / "policy_pairs" / arm.replace(" ", "_")
        learnt = trained(arm, folder, dataset)
        after = accuracies(str(folder / "policy"), problems)
        gain = (after - before)[~np.isnan(after - before)]
        rows.append(
            {
                "arm": arm,
                "accuracy": float(np.nanmean(after)),
                "gain": float(100 * gain.mean()),
                "ci": [100 * end for end in bootstrap_interval(gain)],
                **learnt,
            }
        )
        print(rows[-1], flush=True)
    gains = {row["arm"]: row["gain"] for row in rows if "gain" in row}
    headline = {"points": (gains["pairs"], 4.0), "points_of_random_order": (gains["random order"], 0.0)}
    write_result("policy_pairs", rows, headline)


def trained(arm: str, folder: Path, dataset: Path) -> dict[str, int]:
    """Train an arm; what it learnt from, in numbers."""
    if arm == "right paths":
        config = parse(SftConfig, ["--config", "configs/policy/right_paths.yaml"])
        sft.main(replace(config, dataset=dataset, run=folder / "policy"))
        return {}
    counts: Counter[str] = Counter()
    path = folder / "pairs.parquet"
    trees = list(trees_of(arm, dataset, counts))
    write_pairs(path, trees)
    config = parse(DpoConfig, ["--config", "configs/policy/step_dpo.yaml"])
    dpo.main(replace(config, pairs=path, run=folder / "policy"))
    return dict(counts)


def trees_of(arm: str, dataset: Path, counts: Counter[str]) -> Iterator[PairTree]:
    config = parse(PairsConfig, ["--config", "configs/policy/pairs.yaml"])
    rng, well_formed = random.Random(0), pairs.is_well_formed
    if arm == "malformed kept":
        pairs.is_well_formed = lambda step, tagged: True
    try:
        for row in iterate_rows(dataset):
            paths = row_paths(row)
            tree = pairs_of(paths, config, counts) if paths and paths[0].problem.task in WITHOUT_ZOOMS else None
            if tree is not None:
                yield shuffled(tree, rng) if arm == "random order" else tree
    finally:
        pairs.is_well_formed = well_formed


def shuffled(tree: PairTree, rng: random.Random) -> PairTree:
    """The tree with every other pair, by chance, in the wrong order."""
    turned = [
        replace(pair, better=pair.worse, worse=pair.better) if rng.random() < 0.5 else pair for pair in tree.pairs
    ]
    return replace(tree, pairs=tuple(turned))


def accuracies(policy: str, problems: Sequence[Problem]) -> Any:
    """Share of right solutions of each problem; solutions without an answer are left out; NaN if none is left."""
    return np.array(asyncio.run(_accuracies(LocalPolicy(load_policy(policy)), problems)))


async def _accuracies(policy: LocalPolicy, problems: Sequence[Problem]) -> list[float]:
    asked = [rollouts(policy, Request(p, (), EACH, p.id, seed=1, max_tokens=160)) for p in problems]
    found = []
    for problem, solutions in zip(problems, await asyncio.gather(*asked), strict=True):
        answers = [s.answer for s in solutions if s.answer is not None]
        right = [is_correct(answer, str(problem.answer), problem.answer_type) for answer in answers]
        found.append(sum(right) / len(right) if right else np.nan)
    return found


if __name__ == "__main__":
    main(*([Path(sys.argv[1]), int(sys.argv[2])] if len(sys.argv) > 1 else []))
