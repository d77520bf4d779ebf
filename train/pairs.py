"""Make preference pairs from the siblings of search trees, for train.dpo or TRL.

python -m train.pairs --dataset runs/demo/labels/dataset.parquet --run runs/pairs
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

from datasets import Features

from train.policy.config import PairsConfig
from train.policy.pairs import PAIRS_FILE, PairTree, pairs_of, write_pairs
from train.policy.trl_pairs import TRL_FEATURES, trl_rows
from vlprm.data.dataset import iterate_rows, open_parquet, row_paths, write_parquet
from vlprm.errors import UserError
from vlprm.model.loading import checkpoint_folder, load_inputs
from vlprm.runs.config import dump, run
from vlprm.runs.folder import open_run, write_atomically
from vlprm.runs.progress import tracked

log = logging.getLogger(__name__)

RESULTS = "results.json"


def main(config: PairsConfig) -> None:
    """Run `vlprm pairs`."""
    if config.worse >= config.better:
        raise UserError(f"worse ({config.worse:g}) must be below better ({config.better:g}); lower it")
    with open_parquet(config.dataset) as file:
        rows = file.metadata.num_rows
    of_policy = [checkpoint_folder(config.policy)] if config.format == "trl" else []
    open_run(config.run, dump(config), 0, [config.dataset, *of_policy])
    path = config.run / PAIRS_FILE
    if path.exists():
        log.info("%s already exists", path)
        return
    counts: Counter[str] = Counter()
    trees = chosen(config, tracked(iterate_rows(config.dataset), "trees", rows), counts)
    first = next(trees, None)
    if first is None:
        raise UserError(
            f"no tree of {config.dataset} has a certain pair of next steps ({said(counts)}); use more rollouts, raise"
            f" worse (now {config.worse:g}), or lower better (now {config.better:g})"
        )
    if config.format == "trl":
        inputs = load_inputs(checkpoint_folder(config.policy))
        of_pairs = (row for tree in chain([first], trees) for row in trl_rows(tree, inputs))
        write_parquet(path, of_pairs, Features(TRL_FEATURES))
    else:
        write_pairs(path, chain([first], trees))
    write_atomically(config.run / RESULTS, json.dumps(dict(counts), indent=2) + "\n")
    log.info("%s: %s", path, said(counts))


def chosen(config: PairsConfig, rows: Iterator[dict[str, Any]], counts: Counter[str]) -> Iterator[PairTree]:
    """The pairs of each tree that has one; the others are counted."""
    for row in rows:
        paths = row_paths(row)
        tree = pairs_of(paths, config, counts) if paths else None
        counts["trees_with_pairs" if tree else "trees_without_pairs"] += 1
        if tree:
            yield tree


def said(counts: Counter[str]) -> str:
    """The counts in words."""
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())


if __name__ == "__main__":
    run(main, PairsConfig)
