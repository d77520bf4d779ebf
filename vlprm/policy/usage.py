"""A policy that counts its calls and tokens, so that a search can report its cost."""

from __future__ import annotations

from collections import Counter

from vlprm.policy import Continuation, Policy, Request
from vlprm.runs.cost import Usage
from vlprm.schema import Problem, Region
from vlprm.zoom.boxes import Size


class CountedPolicy:
    """Counts the tokens that the policy it wraps samples and reads, its calls, and the continuations that failed, by
    cause. `prompt`: tokens read by the first call, which are those of the problem in a search."""

    def __init__(self, engine: Policy) -> None:
        self.engine, self.dialect, self.zoom = engine, engine.dialect, engine.zoom
        self.sampled = self.read = self.calls = self.prompt = 0
        self.failures: Counter[str] = Counter()

    async def sample(self, request: Request) -> list[Continuation]:
        """Sample from the wrapped policy and count."""
        self.calls += 1
        continuations = await self.engine.sample(request)
        read = sum(continuation.read for continuation in continuations)
        self.sampled += sum(continuation.tokens for continuation in continuations)
        self.failures.update(continuation.failure for continuation in continuations if continuation.failure)
        self.prompt = self.prompt or read
        self.read += read
        return continuations

    @property
    def usage(self) -> Usage:
        """What the calls cost. Servers count it themselves, with what failed and what they had in their caches."""
        servers = getattr(self.engine, "servers", None)
        known: Usage = servers.usage if servers else Usage(self.calls, read=self.read, sampled=self.sampled)
        return known

    @property
    def tokens(self) -> int:
        """Tokens sampled and read."""
        return self.sampled + self.read

    def seen_size(self, problem: Problem, shown: int | Region = 0) -> Size:
        """See `Policy.seen_size`."""
        return self.engine.seen_size(problem, shown)

    def crop_tokens(self, problem: Problem, region: Region) -> int:
        """See `Policy.crop_tokens`."""
        return self.engine.crop_tokens(problem, region)
