"""Milliseconds per step that a search spends outside of its policy and scorer, which answer at once.

    python -m tests.perf.search_overhead

The policy counts to eight, every step has the same score, and 200 problems run concurrently.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Hashable, Sequence
from typing import Any

from tests.perf.results import write_result
from vlprm.policy import Continuation, Request
from vlprm.schema import Problem, Region, Step, StepScore
from vlprm.scoring import Scored
from vlprm.search import SearchConfig, solve
from vlprm.steps import SEPARATOR
from vlprm.zoom.policy import ZoomPolicy

PROBLEMS, STEPS, ROUNDS = 200, 8, 3
METHODS = ("best_of_n", "step_beam", "dvts", "rebase")
TEXTS = [*(f"[reasoning] {k}" for k in range(1, STEPS)), f"[answer] {STEPS}"]


class Instant:
    dialect = "relative_1000"
    zoom = ZoomPolicy()

    async def sample(self, request: Request) -> list[Continuation]:
        done = len(request.steps)
        if not request.one_step:
            return [Continuation(SEPARATOR.join(TEXTS[done:]), 4, True)] * request.n
        return [Continuation(TEXTS[done], 4, done == STEPS - 1, goes_on=done < STEPS - 1)] * request.n

    async def score(self, problem: Problem, solutions: Sequence[Sequence[Step]], attempt: Hashable = None) -> Scored:
        return Scored([[SCORE] * len(steps) for steps in solutions], [1] * len(solutions))

    def forget(self, problem: Problem, attempt: Hashable = None) -> None:
        pass

    def seen_size(self, problem: Problem, shown: int | Region = 0) -> tuple[int, int]:
        raise AssertionError


SCORE = StepScore(0.9, 0.05, 0.05)


def main() -> None:
    rows = [measured(method) for method in METHODS]
    write_result("search_overhead", rows, {"ms_per_step": (max(row["ms_per_step"] for row in rows), 1.0)})


def measured(method: str) -> dict[str, Any]:
    """A step belongs to one candidate: N candidates of eight steps are 8 N steps."""
    problems = [Problem(str(i), "counting", "Count.", (), str(STEPS), "integer") for i in range(PROBLEMS)]
    config = SearchConfig(n=8, width=4, max_tokens=160)

    async def search() -> None:
        found = await asyncio.gather(*(solve(method, p, Instant(), Instant(), config) for p in problems))
        assert all(f.chosen is not None and f.chosen.solution.answer == str(STEPS) for f in found)

    seconds = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        asyncio.run(search())
        seconds.append(time.perf_counter() - started)
    steps = PROBLEMS * STEPS * config.n
    per_step = [1000 * s / steps for s in seconds[1:]]  # the first warms up
    row = {"method": method, "ms_per_step": statistics.median(per_step), "least": min(per_step), "most": max(per_step)}
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
