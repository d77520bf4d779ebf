"""Step beam search with a scorer that has a KV cache, and with one that reads every prefix again.

    make demo && python -m tests.perf.guided

It uses the built-in policy and the demo's reward model. The scorers run interleaved in one process, and must lead to
the same solutions. It measures the scorer's tokens and seconds per problem.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Hashable, Sequence
from typing import Any

from tests.perf.datasets import DEMO
from tests.perf.results import write_result
from vlprm.model.loading import load_policy
from vlprm.model.reward_loading import load_reward_model
from vlprm.policy.local import LocalPolicy
from vlprm.schema import Problem, Step
from vlprm.scoring import Scored
from vlprm.scoring.local import LocalScorer
from vlprm.search import SearchConfig, SearchResult, solve
from vlprm.tasks import TASKS

REWARD_MODEL = DEMO / "prm"
PROBLEMS, ROUNDS = 40, 3


class Recomputed(LocalScorer):
    """Reads the prompt and the whole prefix every time."""

    async def score(self, problem: Problem, solutions: Sequence[Sequence[Step]], attempt: Hashable = None) -> Scored:
        self.forget(problem, attempt)
        return await super().score(problem, solutions, attempt)


def main() -> None:
    policy, checkpoint = LocalPolicy(load_policy("builtin/policy")), load_reward_model(REWARD_MODEL)
    problems = [task.problem("validation", i) for i in range(PROBLEMS // len(TASKS)) for task in TASKS.values()]
    kinds: dict[str, type[LocalScorer]] = {"kept": LocalScorer, "recomputed": Recomputed}
    rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    chosen: dict[str, Any] = {}
    for turn in range(ROUNDS + 1):
        for kind, scorer in kinds.items():
            timed = Timed(scorer(checkpoint))
            found = asyncio.run(searched(problems, policy, timed))
            chosen[kind] = [f.chosen and f.chosen.solution for f in found]
            if turn:  # the first warms up
                tokens = sum(f.cost.scorer_read for f in found) / len(problems)
                rows[kind].append({"tokens": tokens, "seconds": timed.seconds / len(problems)})
    assert chosen["kept"] == chosen["recomputed"]
    table = [
        {"scorer": kind, **{name: statistics.median(row[name] for row in of_kind) for name in ("tokens", "seconds")}}
        for kind, of_kind in rows.items()
    ]
    print(table)
    kept, recomputed = table
    write_result("guided", table, {
        "cached_over_recomputed": (kept["tokens"] / recomputed["tokens"], 1.0),
        "seconds_cached_over_recomputed": (kept["seconds"] / recomputed["seconds"], 1.0),
    })  # fmt: skip


class Timed:
    """A scorer whose computing time is measured."""

    def __init__(self, scorer: LocalScorer) -> None:
        self.scorer, self.seconds = scorer, 0.0
        read = scorer._batcher._answer_all

        def timed(requests: Any) -> Any:
            started = time.perf_counter()
            found = read(requests)
            self.seconds += time.perf_counter() - started
            return found

        scorer._batcher._answer_all = timed
        self.score, self.forget = scorer.score, scorer.forget


async def searched(problems: Sequence[Problem], policy: LocalPolicy, scorer: Timed) -> list[SearchResult]:
    config = SearchConfig(n=8, width=4, seed=1, max_tokens=160)
    return list(await asyncio.gather(*(solve("step_beam", p, policy, scorer, config) for p in problems)))


if __name__ == "__main__":
    main()
