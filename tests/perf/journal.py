"""Time and peak memory to open, continue and merge the records of 300,000 searched problems.

    python -m tests.perf.journal

- *open*: the keys of one journal, from its index;
- *resume*: what `data_synth.trees` does before its first request: open, find records to make again, list what is left;
- *merge*: open eight finished shards as one run, as every later stage does;
- *rebuild*: open a journal whose index is gone, which reads all of it.

Each runs in a process of its own, so that the peak is its own. Records have 2 KB here; apart from *rebuild*, nothing
depends on their size.
"""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_synth.search.store import SUMMARY, TREES, TreeRun, shard_name
from tests.perf.results import write_result
from vlprm.runs.folder import open_run
from vlprm.runs.index import index_of
from vlprm.runs.journal import Records, finish
from vlprm.runs.window import drop_failed

PROBLEMS, SHARDS, BATCH = 300_000, 8, 1000
GOALS = {"seconds_most": 10.0, "peak_mb_most": 500.0}
TEXT = "the third row has two red circles and one blue square; " * 30


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="journal-"))
    try:
        rows = measured(folder)
    finally:
        shutil.rmtree(folder)
    quick = [row for row in rows if row["operation"] != "rebuild"]
    most = {"seconds_most": max(row["seconds"] for row in quick), "peak_mb_most": max(row["peak_mb"] for row in quick)}
    write_result("journal", rows, {key: (most[key], goal) for key, goal in GOALS.items()})


def measured(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run in one journal, and again in shards."""
    write(folder / "whole" / TREES, range(PROBLEMS))
    for i in range(SHARDS):
        write(folder / "parts" / shard_name(i, SHARDS) / TREES, range(i, PROBLEMS, SHARDS))
    operations = (("open", opened), ("resume", resumed), ("merge", merged), ("rebuild", rebuilt))
    return [in_a_process(name, operation, folder) for name, operation in operations]


def write(path: Path, numbers: range) -> None:
    """Records of these problems, of a finished run."""
    open_run(path.parent, "", 0)
    records = Records(path, SUMMARY)
    for start in range(0, len(numbers), BATCH):
        records.append(map(record, numbers[start : start + BATCH]))
    finish(records)


def record(at: int) -> dict[str, Any]:
    root = {"mc_correct": at % 9, "mc_valid": 8, "mc_total": 8}
    tree = {"root": root, "nodes": [{"text": TEXT}], "rollouts": 60, "stops": {"answer": 60}}
    return {"key": f"problem-{at:07}", "at": at, "tree": tree}


def opened(folder: Path) -> int:
    return len(Records(folder / "whole" / TREES, SUMMARY).keys)


def resumed(folder: Path) -> int:
    records = Records(folder / "whole" / TREES, SUMMARY)
    drop_failed(records)
    return sum(key in records.keys for key in ids())


def ids() -> Iterator[str]:
    return (f"problem-{at:07}" for at in range(PROBLEMS))


def merged(folder: Path) -> int:
    return len(TreeRun(folder / "parts"))


def rebuilt(folder: Path) -> int:
    index_of(folder / "whole" / TREES).unlink()
    return opened(folder)


def in_a_process(name: str, operation: Callable[[Path], int], folder: Path) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found, seconds, cpu_seconds, peak = pool.apply(timed, (operation, folder))
    assert found == PROBLEMS, f"{name}: {found} of {PROBLEMS}"
    row = {"operation": name, "problems": PROBLEMS, "seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": peak}
    print(row, flush=True)
    return row


def timed(operation: Callable[[Path], int], folder: Path) -> tuple[int, float, float, int]:
    started, cpu = time.perf_counter(), time.process_time()
    found = operation(folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return found, round(time.perf_counter() - started, 2), round(time.process_time() - cpu, 2), peak


if __name__ == "__main__":
    main()
