"""An engine that counts what it was asked for, so that a search can say what it cost."""

from __future__ import annotations

from vlprm.policy import Continuation, Policy, Request
from vlprm.schema import Problem, Region
from vlprm.zoom.boxes import Size


class CountedPolicy:
    """Its state: tokens that were sampled, and calls."""

    def __init__(self, engine: Policy) -> None:
        self.engine, self.dialect, self.zoom = engine, engine.dialect, engine.zoom
        self.tokens = self.calls = 0

    async def sample(self, request: Request) -> list[Continuation]:
        self.calls += 1
        continuations = await self.engine.sample(request)
        self.tokens += sum(continuation.tokens for continuation in continuations)
        return continuations

    def seen_size(self, problem: Problem, shown: int | Region = 0) -> Size:
        return self.engine.seen_size(problem, shown)

    def crop_tokens(self, problem: Problem, region: Region) -> int:
        return self.engine.crop_tokens(problem, region)
