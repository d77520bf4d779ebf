"""A policy that counts its calls and tokens, so that a search can report its cost."""

from __future__ import annotations

from vlprm.policy import Continuation, Policy, Request
from vlprm.schema import Problem, Region
from vlprm.zoom.boxes import Size


class CountedPolicy:
    """Counts the sampled tokens and the calls of the policy that it wraps."""

    def __init__(self, engine: Policy) -> None:
        self.engine, self.dialect, self.zoom = engine, engine.dialect, engine.zoom
        self.tokens = self.calls = 0

    async def sample(self, request: Request) -> list[Continuation]:
        """Sample from the wrapped policy and count."""
        self.calls += 1
        continuations = await self.engine.sample(request)
        self.tokens += sum(continuation.tokens for continuation in continuations)
        return continuations

    def seen_size(self, problem: Problem, shown: int | Region = 0) -> Size:
        """See `Policy.seen_size`."""
        return self.engine.seen_size(problem, shown)

    def crop_tokens(self, problem: Problem, region: Region) -> int:
        """See `Policy.crop_tokens`."""
        return self.engine.crop_tokens(problem, region)
