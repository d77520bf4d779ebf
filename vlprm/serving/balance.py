"""Which server gets a call. A problem stays on one server, which then has its image and its prompt in the prefix cache,
unless that server is away or has far more to do than another."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

from cachetools import LRUCache
from openai import AsyncOpenAI

from vlprm.serving.wire import KeptImages

log = logging.getLogger(__name__)

HOMES = 1 << 18  # problems whose server is remembered
# A problem leaves a server that has more calls than SPILL times those of the least busy one, and SLACK more.
SPILL, SLACK = 2, 8
AWAY = 30.0  # seconds for which a server that did not answer gets no calls, if there are others


class Server:
    """A server, the calls that it has, and how many it takes at once: fewer after it was busy or timed out, then one
    more for each round of answers, up to `most`."""

    def __init__(self, client: AsyncOpenAI, most: int) -> None:
        self.client, self.most = client, most
        self.url = str(client.base_url).rstrip("/")
        self.limit = float(most)
        self.open = 0
        self.problems = 0  # that were ever assigned to it
        self.away_until = self._cut_at = 0.0
        self.images = KeptImages()
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def load(self) -> int:
        """Calls that are open or wait for this server."""
        return self.open + len(self._queue)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait until the server takes another call, in order of arrival, and count it as open."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        self._let_in()
        try:
            await turn
            yield
        finally:
            self.open -= turn.done() and not turn.cancelled()
            self._let_in()

    def _let_in(self) -> None:
        while self._queue and (self._queue[0].done() or self.open < int(self.limit)):
            turn = self._queue.popleft()
            if not turn.done():
                self.open += 1
                turn.set_result(None)

    def answered(self) -> None:
        """A call was answered: the server may take more at once."""
        self.limit = min(self.most, self.limit + 1 / self.limit)

    def overloaded(self, since: float) -> None:
        """A call that began at `since` met a busy server, or timed out: it gets half as many at once. Calls that began
        before the last time say nothing new."""
        if since >= self._cut_at:
            self._cut_at = time.monotonic()
            self.limit = max(1.0, min(self.limit, self.open) / 2)
            log.debug("%s gets %d calls at once", self.url, int(self.limit))

    def leaves(self) -> None:
        """The server does not answer: it gets no calls for a while, if there are others."""
        now = time.monotonic()
        if self.away_until <= now:  # log once, not for each call that it had
            log.info("%s does not answer; its problems go to other servers, if there are any", self.url)
        self.away_until = now + AWAY


class Balance:
    """The home of each problem among the servers."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self.servers = servers
        self._homes: LRUCache[str, Server] = LRUCache(HOMES)

    def server_for(self, problem: str, but: Collection[Server] = ()) -> Server:
        """The server for a call about a problem, and its home from now on: not one of `but`, unless that is all."""
        now = time.monotonic()
        left = [server for server in self.servers if server not in but] or self.servers
        there = [server for server in left if server.away_until <= now] or left
        lightest = min(there, key=lambda server: (server.load, server.problems))
        home = self._homes.get(problem)
        if home is not None and home in there and home.load <= SPILL * lightest.load + SLACK:
            return home
        lightest.problems += 1
        self._homes[problem] = lightest
        return lightest
