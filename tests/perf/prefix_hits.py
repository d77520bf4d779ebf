"""The share of requests that reach a server which has their prompt in its prefix cache, on one and eight servers.

    python -m tests.perf.prefix_hits

The mock policy of tests.perf.mock searches 200 problems with 64 of them in flight, through the real client, whose
transport is replaced by simulated servers: a request takes a moment that varies, and a server has the prompt of a
problem if it was asked about the problem before, and about fewer than 100 others since. The first request of each
problem finds nothing anywhere, so one server is the bound. *in turn* is a client that takes the servers in turn.

Also measured: the largest share of the requests that one of the eight servers gets (an eighth is even), and the same
when one of them answers four times as slowly.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from cachetools import LRUCache

from data_synth.search.config import TreeSearchConfig
from data_synth.search.drive import Work, served
from data_synth.search.source import drawn_problems
from tests.perf.mock import FAMILY, MockPolicy
from tests.perf.results import write_result
from vlprm.policy import Continuation, Request
from vlprm.runs.cost import Meter
from vlprm.runs.journal import Records
from vlprm.serving.balance import Server
from vlprm.serving.client import Answer, Failure, Kind, Servers
from vlprm.serving.config import ServerConfig

PROBLEMS, IN_FLIGHT, ROOM, SERVERS = 200, 64, 100, 8
SEARCH = TreeSearchConfig(searches=16, searches_at_once=2)
SECONDS = (0.002, 0.01)  # a request takes from the first to the second
GOAL = 0.95


class Simulated(Servers):
    """The client with simulated servers. `slow`: how many times as long the first one takes."""

    def __init__(self, servers: int, slow: float = 1.0) -> None:
        super().__init__(ServerConfig(tuple(f"http://server-{i}/v1" for i in range(servers)), "mock"))
        self.slow = {server: slow if i == 0 else 1.0 for i, server in enumerate(self.each)}
        self.known: dict[Server, LRUCache[str, bool]] = {server: LRUCache(ROOM) for server in self.each}
        self.requests: Counter[Server] = Counter()
        self.found = 0
        self._random = random.Random(0)

    async def once(self, server: Server, body: dict[str, Any], kind: Kind = "chat") -> Answer | Failure:
        problem = body["problem"]
        self.requests[server] += 1
        self.found += self.known[server].get(problem, False)
        self.known[server][problem] = True
        await asyncio.sleep(self.slow[server] * self._random.uniform(*SECONDS))
        return Answer({}, None, None)


class InTurn(Simulated):
    """Baseline: the servers take turns."""

    def __init__(self, servers: int) -> None:
        super().__init__(servers)
        turns = itertools.cycle(self.each)

        def next_one(problem: str, but: Collection[Server] = ()) -> Server:
            return next(turns)

        self._balance.server_for = next_one  # type: ignore[method-assign]


class Asking(MockPolicy):
    """The mock policy, which asks the servers before it answers."""

    def __init__(self, servers: Simulated) -> None:
        self.pool = servers

    async def sample(self, request: Request) -> list[Continuation]:
        await self.pool.call({"problem": request.problem.id}, request.problem.id)
        return await super().sample(request)


def main() -> None:
    runs = {
        "one server": lambda: Simulated(1),
        "eight, in turn": lambda: InTurn(SERVERS),
        "eight": lambda: Simulated(SERVERS),
        "eight, one slow": lambda: Simulated(SERVERS, slow=4.0),
    }
    rows = [asyncio.run(measured(name, made)) for name, made in runs.items()]
    found = {row["servers"]: row["found"] for row in rows}
    write_result("prefix_hits", rows, {"found_on_eight": (found["eight"], GOAL)})


async def measured(name: str, made: Any) -> dict[str, Any]:
    servers = made()
    with tempfile.TemporaryDirectory() as folder:
        await search(servers, Path(folder))
    total = servers.requests.total()
    row = {
        "servers": name,
        "requests": total,
        "found": round(servers.found / total, 4),
        "largest_share": round(max(servers.requests.values()) / total, 4),
    }
    print(row, flush=True)
    return row


async def search(servers: Simulated, folder: Path) -> None:
    source = drawn_problems({"mock": FAMILY}, "train", PROBLEMS)
    work = Work(
        source, [source.ids], SEARCH, 0, Records(folder / "trees.jsonl"), folder / "images", asyncio.Event(),
        lambda done: None, Meter(folder, "trees", 1),
    )  # fmt: skip
    await served(work, Asking(servers), IN_FLIGHT)


if __name__ == "__main__":
    main()
