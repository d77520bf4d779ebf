"""How close a run with servers comes to the time that latency, concurrency and the number of requests allow.

    python -m tests.perf.synth_concurrency

There are 200 problems with two searches of each at once (as in configs/server/trees.yaml), and a mock policy whose
requests take L seconds, C of them at once. No schedule is faster than L * max(requests / C rounded up, rounds of the
longest problem), since each round waits for the one before. L grows with C, so that this process's own computation
stays small in comparison.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
import time
from pathlib import Path
from typing import Any

from data_synth.search.config import TreeSearchConfig
from data_synth.search.drive import Work, served
from data_synth.search.source import drawn_problems
from tests.perf.mock import FAMILY, MockEngine
from tests.perf.results import write_result
from vlprm.runs.cost import Meter
from vlprm.runs.journal import Records

PROBLEMS, GOAL = 200, 1.15
LATENCIES = {8: 0.05, 32: 0.2, 128: 0.8}


def main() -> None:
    rows = [measured(concurrency, latency) for concurrency, latency in LATENCIES.items()]
    headline = {f"critical_path_ratio_c{row['concurrency']}": (row["ratio"], GOAL) for row in rows}
    write_result("synth_concurrency", rows, headline)


def measured(concurrency: int, latency: float) -> dict[str, Any]:
    engine = MockEngine(latency, concurrency)
    with tempfile.TemporaryDirectory() as folder:
        seconds = asyncio.run(_run(engine, Path(folder)))
    requests, longest = engine.requests.total(), max(engine.rounds.values())
    bound = latency * max(math.ceil(requests / concurrency), longest)
    return {
        "concurrency": concurrency, "latency": latency, "requests": requests, "longest_rounds": longest,
        "seconds": round(seconds, 3), "bound": round(bound, 3), "ratio": round(seconds / bound, 4),
    }  # fmt: skip


async def _run(engine: MockEngine, folder: Path) -> float:
    source = drawn_problems({"mock": FAMILY}, "train", PROBLEMS)
    records = Records(folder / "trees.jsonl")
    work = Work(
        source, [source.ids], TreeSearchConfig(searches_at_once=2), 0, records, folder / "images", asyncio.Event(),
        lambda done: None, Meter(folder, "trees", 1),
    )  # fmt: skip
    started = time.perf_counter()
    await served(work, engine, in_flight=256)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
