"""Peak memory of a training step in the three layouts of tests.perf.train_rows, each in a process of its own.

    python -m tests.perf.train_memory

The memory before the first batch is subtracted.
"""

from __future__ import annotations

import multiprocessing
import resource
from typing import Any

from tests.perf.results import write_result
from tests.perf.train_rows import VARIANTS, backbones, batches_of, checkpoint_for, train_on, tree

TREES = 2


def main() -> None:
    rows = [measured(name, *where, variant) for name, where in backbones().items() for variant in VARIANTS]
    peak = {(row["backbone"], row["variant"]): row["peak_mb"] for row in rows}
    ratio = peak["qwen2_5_vl", "trees"] / peak["qwen2_5_vl", "budgeted_paths"]
    write_result("train_memory", rows, {"trees_over_paths": (ratio, 1.0)})


def measured(backbone: str, folder: str, side: int, variant: str) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak = pool.apply(peak_of, (folder, side, variant))
    row = {"backbone": backbone, "variant": variant, "peak_mb": peak}
    print(row, flush=True)
    return row


def peak_of(folder: str, side: int, variant: str) -> float:
    checkpoint = checkpoint_for(folder)
    batches = batches_of(variant, [tree(i, side) for i in range(TREES)], checkpoint)
    before = _peak_mb()
    train_on(batches, checkpoint)
    return _peak_mb() - before


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
