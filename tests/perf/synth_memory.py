"""Peak memory of the stages that make a dataset, at 1,000, 10,000 and 100,000 problems: it should not grow with them.

    python -m tests.perf.synth_memory

Each stage runs in a process of its own, without torch, whose hundreds of megabytes would hide the growth. The policy is
that of tests.perf.mock, with few rollouts per problem; its answers are journalled and every tree is written, as in
a run with servers. The headline is the ratio of the stage that grows most.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_synth import judge, label
from data_synth.search.config import TreeSearchConfig
from data_synth.search.drive import Work, served
from data_synth.search.source import drawn_problems
from data_synth.search.store import IMAGES, TREES
from tests.perf.mock import FAMILY, MockPolicy
from tests.perf.results import write_result
from vlprm.runs.cost import Meter
from vlprm.runs.folder import open_run
from vlprm.runs.journal import Records, finish

SIZES, GOAL = (1_000, 10_000, 100_000), 1.2
TASK = ("tests.perf.mock",)
SEARCH = TreeSearchConfig(root_rollouts=3, rollouts=1, searches=1)


def main() -> None:
    rows = [row for size in SIZES for row in measured(size)]
    peak = {(row["stage"], row["problems"]): row["peak_mb"] for row in rows}
    ratios = [peak[stage, SIZES[-1]] / peak[stage, SIZES[0]] for stage, size in peak if size == SIZES[0]]
    write_result("synth_memory", rows, {"peak_100k_over_1k": (max(ratios), GOAL)})


def measured(size: int) -> list[dict[str, Any]]:
    folder = Path(tempfile.mkdtemp(prefix="synth_memory-"))
    try:
        return [_in_a_process(stage, folder, size) for stage in (grow_trees, judge_them, label_them)]
    finally:
        shutil.rmtree(folder)


def grow_trees(folder: Path, size: int) -> None:
    run = folder / "trees"
    open_run(run, "", 0)
    source = drawn_problems({FAMILY.name: FAMILY}, "train", size)
    records = Records(run / TREES)

    async def work() -> None:
        meter = Meter(run, "trees", 1)
        todo = Work(source, source.units(125, "0/1"), SEARCH, 0, records, run / IMAGES, asyncio.Event(), print, meter)
        await served(todo, MockPolicy(), in_flight=256)

    asyncio.run(work())
    finish(records)


def judge_them(folder: Path, size: int) -> None:
    judge.main(judge.JudgeConfig(folder / "trees", folder / "judgements", tasks=TASK))


def label_them(folder: Path, size: int) -> None:
    label.main(label.LabelConfig(folder / "trees", folder / "labels", (folder / "judgements",)))


def _in_a_process(stage: Callable[[Path, int], None], folder: Path, size: int) -> dict[str, Any]:
    """Runs the stage in a new interpreter, so that the peak is its own."""
    started = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak = pool.apply(_peak_of, (stage, folder, size))
    row = {
        "problems": size,
        "stage": stage.__name__,
        "peak_mb": round(peak),
        "seconds": round(time.perf_counter() - started),
    }
    print(row, flush=True)
    return row


def _peak_of(stage: Callable[[Path, int], None], folder: Path, size: int) -> float:
    stage(folder, size)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024  # bytes on macOS, kilobytes on Linux


if __name__ == "__main__":
    main()
