"""Stored answers: they are asked for once, and the file stays as small as the problems in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Container
from pathlib import Path

import pytest

from tests.perf.mock import FAMILY, MockPolicy
from vlprm.policy import Continuation, Request
from vlprm.policy import replay as replay_module
from vlprm.policy.replay import ANSWERS, ReplayPolicy

PROBLEMS = [FAMILY.problem("train", i) for i in range(8)]


class Counting(MockPolicy):
    def __init__(self) -> None:
        self.asked: list[str] = []

    async def sample(self, request: Request) -> list[Continuation]:
        self.asked.append(request.key)
        return await super().sample(request)


def requests(problem: int) -> list[Request]:
    of = PROBLEMS[problem]
    return [Request(of, (), 2, f"{of.id}#{i}", seed=0) for i in range(3)]


def opened(folder: Path, engine: Counting, done: Container[str] = ()) -> ReplayPolicy:
    return ReplayPolicy(engine, folder / ANSWERS, done, asyncio.Event())


def ask(policy: ReplayPolicy, *problems: int) -> list[list[Continuation]]:
    async def all_of() -> list[list[Continuation]]:
        return [await policy.sample(request) for problem in problems for request in requests(problem)]

    return asyncio.run(all_of())


def test_a_new_process_replays_what_is_not_done(tmp_path: Path) -> None:
    first = Counting()
    policy = opened(tmp_path, first)
    answers = ask(policy, 0, 1, 2)
    policy.forget(PROBLEMS[0].id)
    with (tmp_path / ANSWERS).open("a") as file:
        file.write('{"key": "torn')
    second = Counting()
    again = opened(tmp_path, second, done={PROBLEMS[0].id, PROBLEMS[1].id})
    assert ask(again, 2) == answers[6:]
    assert not second.asked
    assert ask(again, 1) == answers[3:6]
    assert len(second.asked) == 3


def test_the_file_shrinks_while_problems_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "WASTE", 0)
    policy = opened(tmp_path, Counting())
    answers = ask(policy, *range(8))
    whole = (tmp_path / ANSWERS).stat().st_size
    sizes = []
    for problem in (3, 1, 5, 0, 7):
        policy.forget(PROBLEMS[problem].id)
        sizes.append((tmp_path / ANSWERS).stat().st_size)
    assert sizes[0] == whole, "one of eight is no reason to write it anew"
    assert sizes[-1] < whole / 2
    ask(policy, 3)  # a problem that comes after the file was written anew
    engine = Counting()
    assert ask(opened(tmp_path, engine), 2, 3, 4, 6) == [*answers[6:15], *answers[18:21]]
    assert not engine.asked


def test_a_file_without_answers_is_removed(tmp_path: Path) -> None:
    policy = opened(tmp_path, Counting())
    ask(policy, 0)
    policy.forget(PROBLEMS[0].id)
    policy.compact()
    assert not (tmp_path / ANSWERS).exists()
    ask(policy, 1)
    assert (tmp_path / ANSWERS).exists()
