"""Sample rollouts that zoom, and rollouts of the same policy that do not.

    python -m tests.perf.zoom_sampling

It uses the built-in policy, which zooms in fine_print only, with keys, values and image features kept over turns, and
with nothing kept. The variants run interleaved in one process. It measures CPU milliseconds per sampled token, which
other processes change little; the tokens of crops, which are read, are not among them.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Any

from tests.perf.results import write_result
from vlprm.model.loading import load_policy
from vlprm.policy import Continuation, Request
from vlprm.policy.local import LocalPolicy, generate
from vlprm.policy.rollout import rollouts
from vlprm.schema import Solution
from vlprm.tasks import TASKS

PROBLEMS, EACH, ROUNDS = 16, 8, 3
PLAIN = tuple(name for name in TASKS if name != "fine_print")


class Forgetful(LocalPolicy):
    """Keeps nothing from one batch to the next."""

    def __init__(self, policy: LocalPolicy) -> None:
        super().__init__(policy.checkpoint)
        self._together._answer_all = self._answer

    def _answer(self, requests: Sequence[Request]) -> list[list[Continuation]]:
        return generate(self.checkpoint, requests)


def main() -> None:
    policy = LocalPolicy(load_policy("builtin/policy"))
    variants: dict[str, tuple[LocalPolicy, Sequence[str]]] = {
        "plain": (policy, PLAIN),
        "zooms": (policy, ["fine_print"]),
        "zooms, nothing kept": (Forgetful(policy), ["fine_print"]),
    }
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
    for turn in range(ROUNDS):
        for name, (engine, families) in variants.items():
            # Other problems in each round, so that their prompts are not known already.
            rows[name].append(timed(engine, families, first=turn * PROBLEMS))
    table = [
        {"variant": name, **{key: statistics.median(row[key] for row in of) for key in of[0]}, "rounds": of}
        for name, of in rows.items()
    ]
    for row in table:
        print({key: value for key, value in row.items() if key != "rounds"})
    plain, zooms, forgetful = (row["ms_per_token"] for row in table)
    write_result("zoom_sampling", table, {
        "zooms_over_plain": (zooms / plain, 3.0),
        "kept_over_nothing_kept": (zooms / forgetful, 1.0),
    })  # fmt: skip


def timed(engine: LocalPolicy, families: Sequence[str], first: int) -> dict[str, Any]:
    problems = [
        TASKS[families[i % len(families)]].problem("validation", first + i // len(families)) for i in range(PROBLEMS)
    ]
    for problem in problems:
        engine.checkpoint.inputs.prompt(problem)  # pixels are made before the clock starts, in all variants

    async def sampled() -> list[list[Solution]]:
        asked = [Request(p, (), EACH, f"{first}/{p.id}", 1, max_tokens=160) for p in problems]
        return list(await asyncio.gather(*(rollouts(engine, request) for request in asked)))

    started, cpu_started = time.perf_counter(), time.process_time()
    found = [one for of_problem in asyncio.run(sampled()) for one in of_problem]
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    tokens = sum(one.tokens for one in found)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "tokens": tokens,
        "ms_per_token": 1000 * cpu_seconds / tokens,
        "crops": sum(step.region is not None for one in found for step in one.steps),
    }


if __name__ == "__main__":
    main()
