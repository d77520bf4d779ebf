"""Guided search with a served policy and a reward model in this process, against the sum of their times.

    python -m tests.perf.overlap

The policy writes eight steps for each problem; each of its calls takes LATENCY seconds, as on a server. The reward
model has random weights. Step beam search runs on all problems together: with this policy and a scorer that answers at
once, then with a policy that answers at once and this reward model, then with both. The longest time in which no
coroutine ran is measured too.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests.perf.results import write_result
from tests.perf.scoring import _random_head, problem_and_candidates, write_qwen3_vl
from tests.perf.search_overhead import STEPS, Instant
from vlprm.policy import Continuation, Request
from vlprm.schema import Problem
from vlprm.scoring import Scorer
from vlprm.scoring.local import LocalScorer
from vlprm.search import SearchConfig, solve

PROBLEMS, SIDE, ROUNDS = 48, 8 * 32, 3
LATENCY = 0.25  # seconds, more or less by a half
CONFIG = SearchConfig(n=8, width=4)


class Served(Instant):
    """A policy that answers each call after a while."""

    def __init__(self) -> None:
        self.random = random.Random(0)

    async def sample(self, request: Request) -> list[Continuation]:
        await asyncio.sleep(LATENCY * self.random.uniform(0.5, 1.5))
        return await super().sample(request)


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="overlap-"))
    write_qwen3_vl(folder)
    checkpoint = _random_head(folder)
    problem, _ = problem_and_candidates(SIDE, 1)
    problems = [replace(problem, id=str(i), question=f"Count to {i}.", answer=str(STEPS)) for i in range(PROBLEMS)]
    rows = []
    for turn in range(ROUNDS + 1):
        row = {
            "policy": searched(problems, Served(), Instant())[0],
            "scorer": searched(problems, Instant(), LocalScorer(checkpoint))[0],
        }
        row["both"], row["longest_stall"] = searched(problems, Served(), LocalScorer(checkpoint))
        row["over_sum"] = row["both"] / (row["policy"] + row["scorer"])
        print(row, flush=True)
        if turn:  # the first warms up
            rows.append(row)
    write_result("overlap", rows, {
        "both_over_sum": (statistics.median(row["over_sum"] for row in rows), 0.7),
        "longest_stall": (statistics.median(row["longest_stall"] for row in rows), 0.05),
    })  # fmt: skip


def searched(problems: list[Problem], policy: Any, scorer: Scorer) -> tuple[float, float]:
    """Seconds of a search, and the longest time in which the event loop stood still."""

    async def run() -> tuple[float, float]:
        stalls = [0.0]
        watch = asyncio.create_task(watched(stalls))
        started = time.perf_counter()
        await asyncio.gather(*(solve("step_beam", p, policy, scorer, CONFIG) for p in problems))
        seconds = time.perf_counter() - started
        watch.cancel()
        return seconds, max(stalls)

    return asyncio.run(run())


async def watched(stalls: list[float]) -> None:
    while True:
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        stalls.append(time.perf_counter() - before - 0.001)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
