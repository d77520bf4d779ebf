"""A world without a model: ten-step solutions in which each clean step turns wrong with probability 0.08 and a wrong
one never recovers. The answer is always 42, so the truth of each step and the value of each prefix are known.

Commands take the family as the task `tests.perf.mock`.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from PIL import Image

from vlprm.policy import Continuation, Request
from vlprm.schema import Problem, Region, Step
from vlprm.steps import SEPARATOR
from vlprm.tasks.scene import rng_for
from vlprm.tasks.synthetic import Claim, Scene, SyntheticFamily
from vlprm.zoom.boxes import Size
from vlprm.zoom.policy import ZoomPolicy

STEPS, ERROR_RATE = 10, 0.08


def _read(scene: Scene, stated: dict[str, Any], step: Step) -> Claim:
    return Claim(f"step {len(stated)}", "wrong" in step.text or step.text == "[answer] 41", False)


FAMILY = SyntheticFamily(
    name="mock",
    version=1,
    question_types=("mock",),
    make=lambda rng: {"content": {"type": "mock", "number": rng.getrandbits(60)}, "layout": {}},
    draw=lambda scene: Image.new("RGB", (32, 32), scene["content"]["number"] % (1 << 24)),
    ask=lambda scene: ("What is the answer?", "42", "integer"),
    solve=lambda scene, writer: [],
    parse_claim=_read,
)


def continuation(prefix: Sequence[str], rng: random.Random, bits: int = 40, error_rate: float = ERROR_RATE) -> str:
    """The rest of a solution that begins with these steps. Each step is worded in one of 2 ** `bits` ways."""
    steps, wrong = list(prefix), any("wrong" in text for text in prefix)
    while len(steps) < STEPS - 1:
        wrong = wrong or rng.random() < error_rate
        steps.append(f"[reasoning] {'wrong' if wrong else 'clean'} {rng.getrandbits(bits):x}")
    wrong = wrong or rng.random() < error_rate
    return SEPARATOR.join([*steps, "[answer] 41" if wrong else "[answer] 42"][len(prefix) :])


class MockPolicy:
    """The policy of this world, which answers at once. With few `bits`, two of its steps often have the same words."""

    dialect = "relative_1000"
    zoom = ZoomPolicy()
    bits, error_rate = 40, ERROR_RATE

    def seen_size(self, problem: Problem, shown: int | Region = 0) -> Size:
        return 32, 32

    async def sample(self, request: Request) -> list[Continuation]:
        prefix = [step.text for step in request.steps]
        chances = (rng_for(request.seed, request.key, i) for i in range(request.n))
        texts = (continuation(prefix, rng, self.bits, self.error_rate) for rng in chances)
        return [Continuation(text, 10 * (STEPS - len(prefix)), True) for text in texts]


class MockEngine(MockPolicy):
    """The policy behind a queue. A request takes `latency` seconds, and at most `concurrency` are open; the others wait
    in order of arrival. `requests` counts the requests by problem, `rounds` those that began when none was open."""

    def __init__(self, latency: float = 0.0, concurrency: int = 1_000_000) -> None:
        self.latency = latency
        self.requests: Counter[str] = Counter()
        self.rounds: Counter[str] = Counter()
        self._slots = asyncio.Semaphore(concurrency)
        self._open: Counter[str] = Counter()

    async def sample(self, request: Request) -> list[Continuation]:
        problem = request.problem.id
        self.requests[problem] += 1
        self.rounds[problem] += not self._open[problem]
        self._open[problem] += 1
        async with self._slots:
            await asyncio.sleep(self.latency)
        self._open[problem] -= 1
        return await super().sample(request)
