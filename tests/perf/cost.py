"""The cost of a command in a process of its own."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def in_a_process(stage: Callable[[Path], None], folder: Path) -> dict[str, Any]:
    """Wall seconds, CPU seconds and peak megabytes, all including the start of Python."""
    started = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        cpu, peak = pool.apply(_cost_of, (stage, folder))
    row = {
        "what": stage.__name__,
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_mb": round(peak),
    }
    print(row, flush=True)
    return row


def _cost_of(stage: Callable[[Path], None], folder: Path) -> tuple[float, float]:
    stage(folder)
    return time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
