"""A problem stays on its server unless that is away or overloaded, and a busy server gets fewer calls at once."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.stand_in import Answer, Body, StandIn, as_asked, completion, config_of
from vlprm.serving import client as client_module
from vlprm.serving.balance import SLACK, SPILL, Balance, Server
from vlprm.serving.client import Servers
from vlprm.serving.config import ServerConfig

Start = Callable[[], StandIn]


def body_of(problem: str) -> Body:
    return {"model": "policy", "messages": [{"role": "user", "content": problem}]}


def problems_of(server: StandIn) -> list[str]:
    return [body["messages"][0]["content"] for body in server.asked]


def on(config: ServerConfig, work: Callable[[Servers], Coroutine[Any, Any, Any]]) -> Any:
    async def opened() -> Any:
        servers = Servers(config)
        try:
            return await work(servers)
        finally:
            await servers.close()

    return asyncio.run(opened())


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAUSES", (0.02, 0.1))
    monkeypatch.setattr(client_module, "RETRY", (0.01, 0.02))


def test_all_requests_of_a_problem_go_to_one_server(servers: Start) -> None:
    three = [servers() for _ in range(3)]

    async def ask(pool: Servers) -> None:
        async def one(problem: str) -> None:
            for _ in range(3):
                await pool.call(body_of(problem), problem)

        await asyncio.gather(*(one(f"p{i}") for i in range(9)))

    on(config_of(*three), ask)
    homes: dict[str, set[int]] = defaultdict(set)
    for at, server in enumerate(three):
        for problem in problems_of(server):
            homes[problem].add(at)
    assert all(len(places) == 1 for places in homes.values())
    assert [len(server.asked) for server in three] == [9, 9, 9]


@pytest.mark.usefixtures("hurried")
def test_the_problems_of_a_server_that_goes_away_move_to_another_and_stay_there(servers: Start) -> None:
    two = [servers(), servers()]

    async def ask(pool: Servers) -> None:
        for problem in ("p0", "p1"):
            await pool.call(body_of(problem), problem)
        (gone,) = (server for server in two if "p0" in problems_of(server))
        gone.away = True
        for _ in range(3):
            answer = await pool.call(body_of("p0"), "p0")
            assert isinstance(answer, client_module.Answer)
        assert len(gone.asked) == 2, "one call found out that it is away"
        gone.away = False
        await pool.call(body_of("p0"), "p0")
        assert len(gone.asked) == 2

    on(config_of(*two), ask)


def made(count: int, most: int = 1000) -> list[Server]:
    client = AsyncOpenAI(base_url="http://localhost:1/v1", api_key="none")
    return [Server(client, most) for _ in range(count)]


def test_a_problem_leaves_a_server_that_has_far_more_to_do() -> None:
    first, second = made(2)
    balance = Balance([first, second])
    assert balance.server_for("a") is first
    assert balance.server_for("b") is second
    second.open = 3
    first.open = SPILL * 3 + SLACK
    assert balance.server_for("a") is first
    first.open += 1
    assert balance.server_for("a") is second
    first.open = 0
    assert balance.server_for("a") is second, "its prompt is there now"


def test_calls_wait_in_order_for_as_many_places_as_the_server_has() -> None:
    async def work() -> None:
        (server,) = made(1, most=2)
        entered: list[int] = []
        go_on = asyncio.Event()

        async def call(i: int) -> None:
            async with server.slot():
                entered.append(i)
                await go_on.wait()

        calls = [asyncio.create_task(call(i)) for i in range(5)]
        await asyncio.sleep(0.01)
        assert (entered, server.open, server.load) == ([0, 1], 2, 5)
        calls[2].cancel()  # while it waits
        calls[1].cancel()  # while it is open
        await asyncio.sleep(0.01)
        assert (entered, server.open) == ([0, 1, 3], 2)
        go_on.set()
        await asyncio.gather(*calls, return_exceptions=True)
        assert (entered, server.open, server.load) == ([0, 1, 3, 4], 0, 0)

    asyncio.run(work())


def test_a_busy_server_gets_fewer_calls_at_once_and_more_again_later() -> None:
    (server,) = made(1, most=64)
    server.open = 64
    began = time.monotonic()
    server.overloaded(began)
    assert server.limit == 32
    server.overloaded(began)
    assert server.limit == 32, "a call from before the first says nothing new"
    for _ in range(32):
        server.answered()
    assert 32.9 < server.limit < 33.1
    for _ in range(10_000):
        server.answered()
    assert server.limit == 64


@pytest.mark.usefixtures("hurried")
def test_a_server_that_takes_few_calls_is_asked_for_few(server: StandIn) -> None:
    room, refused = threading.Semaphore(4), []

    def reply(body: Body) -> Answer:
        if not room.acquire(blocking=False):
            refused.append(body)
            return 429, "application/json", "{}"
        time.sleep(0.02)
        room.release()
        return as_asked(body)

    server.reply = reply

    async def ask(pool: Servers) -> float:
        await asyncio.gather(*(pool.call(body_of(str(i)), str(i)) for i in range(120)))
        return pool.each[0].limit

    assert on(config_of(server, concurrency=32, retries=8, patience=60.0), ask) < 16
    assert len(refused) < 120


def test_the_cost_of_calls_is_counted(server: StandIn) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 90}}

    def reply(body: Body) -> Answer:
        problem = body["messages"][0]["content"]
        if problem == "wrong":
            return 400, "application/json", "{}"
        status, kind, text = completion("yes", read=50)
        return status, kind, json.dumps({**json.loads(text), "usage": usage}) if problem == "hit" else text

    server.reply = reply

    async def ask(pool: Servers) -> Any:
        for problem in ("hit", "plain", "wrong"):
            await pool.call(body_of(problem), problem)
        return pool.usage

    used = on(config_of(server), ask)
    assert (used.requests, used.failures, used.read, used.sampled) == (2, 1, 150, 7)
    assert (used.cached, used.cached_of) == (90, 100)
