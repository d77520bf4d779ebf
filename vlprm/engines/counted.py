"""An engine that counts what it was asked for, so that a search can say what it cost."""

from __future__ import annotations

from vlprm.engines import Continuation, Engine, Request
from vlprm.images import Size
from vlprm.schema import Problem


class Counted:
    """Its state: tokens that were sampled, and calls."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.dialect = engine, engine.dialect
        self.tokens = self.calls = 0

    async def sample(self, request: Request) -> list[Continuation]:
        self.calls += 1
        continuations = await self.engine.sample(request)
        self.tokens += sum(continuation.tokens for continuation in continuations)
        return continuations

    def seen_size(self, problem: Problem) -> Size:
        return self.engine.seen_size(problem)
