"""Labelled training steps per second: single solutions in random batches or under a token budget, and whole trees.

    python -m tests.perf.train_throughput

The three layouts run interleaved in one process with the same model and labels, and the medians of the rounds are
compared. Their losses must be equal. A ratio compares the times for the same labels; `limit` is the ratio of tokens.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from tests.perf.results import write_result
from tests.perf.train_rows import VARIANTS, backbones, batches_of, checkpoint_for, real_tokens, train_on, tree

TREES, ROUNDS = 2, 3


def main() -> None:
    rows = [row for name, (folder, side) in backbones().items() for row in measured(name, folder, side)]
    of = {(row["backbone"], row["variant"]): row for row in rows}
    trees, paths = of["qwen2_5_vl", "trees"], of["qwen2_5_vl", "random_paths"]
    ratio = trees["steps_per_second"] / paths["steps_per_second"]
    limit = paths["tokens"] / trees["tokens"]
    write_result("train_throughput", rows, {"trees_over_paths": (ratio, 4.0), "share_of_limit": (ratio / limit, 0.8)})


def measured(backbone: str, folder: str, side: int) -> list[dict[str, Any]]:
    checkpoint = checkpoint_for(folder)
    trees = [tree(i, side) for i in range(TREES)]
    batches = {variant: batches_of(variant, trees, checkpoint) for variant in VARIANTS}
    losses = {variant: train_on(batches[variant], checkpoint) for variant in VARIANTS}  # warms up, too
    assert max(losses.values()) - min(losses.values()) < 1e-4, losses
    seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for _ in range(ROUNDS):
        for variant in VARIANTS:
            checkpoint.model.zero_grad()
            started = time.perf_counter()
            train_on(batches[variant], checkpoint)
            seconds[variant].append(time.perf_counter() - started)
    labelled = sum(len({node for path in tree for node in path.nodes}) for tree in trees)
    return [row(backbone, variant, labelled, seconds[variant], real_tokens(batches[variant])) for variant in VARIANTS]


def row(backbone: str, variant: str, labelled: int, seconds: list[float], tokens: int) -> dict[str, Any]:
    result = {
        "backbone": backbone,
        "variant": variant,
        "tokens": tokens,
        "steps_per_second": labelled / statistics.median(seconds),
        "least": labelled / max(seconds),
        "most": labelled / min(seconds),
    }
    print(result, flush=True)
    return result


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
