"""Runs that lose nothing: killed, stopped, sharded or on a cluster, they end with the dataset of an undisturbed run."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import multiprocessing
import os
import random
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from data_synth import judge, label, trees
from data_synth.search.config import TreesConfig, TreeSearchConfig
from data_synth.search.store import IMAGES, TREES, TreeRun
from tests.perf.mock import continuation
from tests.ray_nodes import a_worker, two_nodes
from tests.stand_in import Answer, Body, StandIn, completion, config_of
from vlprm.data.dataset import read_rows
from vlprm.policy import all_answers
from vlprm.runs.journal import read_records
from vlprm.runs.window import EXIT_STOPPED, Stopped, in_window
from vlprm.serving.config import ModelConfig
from vlprm.tasks.scene import rng_for

SEARCH = TreeSearchConfig(root_rollouts=4, rollouts=4, searches=3, max_tokens=400)
TASK = ("tests.perf.mock",)


class Policy:
    """The answers of a stand-in server: the mock's policy, which depends only on the request."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.on_request: Callable[[int], None] = lambda count: None
        self.seconds = 0.0

    def __call__(self, body: Body) -> Answer:
        if "n" not in body:  # the check at the start
            return completion("1")
        key = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        self.asked[key] += 1
        self.on_request(self.asked.total())
        time.sleep(self.seconds)
        last = body["messages"][-1]
        prefix = last["content"].split("\n\n") if last["role"] == "assistant" else []
        return completion(*(continuation(prefix, rng_for(key, i)) for i in range(body["n"])))


@pytest.fixture
def policy(server: StandIn) -> Policy:
    server.reply = Policy()
    return server.reply


def config(run: Path, server: StandIn, **changes: object) -> TreesConfig:
    policy = ModelConfig("builtin/policy", config_of(server, concurrency=4))
    base = TreesConfig(run, policy, tasks=TASK, problems=30, unit=5, search=SEARCH)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def dataset(run: Path, folder: Path) -> list[dict]:  # type: ignore[type-arg]
    judge.main(judge.JudgeConfig(run, folder / "judgements", tasks=TASK))
    label.main(label.LabelConfig(run, folder / "labels", (folder / "judgements",)))
    return read_rows(folder / "labels" / "dataset.parquet")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_twenty_points_the_dataset_is_the_same_and_nothing_is_paid_twice(
    server: StandIn, policy: Policy, tmp_path: Path
) -> None:
    trees.main(config(tmp_path / "whole", server))
    needed = set(policy.asked)
    policy.asked.clear()
    context = multiprocessing.get_context("forkserver")  # twenty starts, one import
    context.set_forkserver_preload(["data_synth.trees", "vlprm.model.loading", "vlprm.policy.served"])
    points, kills = random.Random(5), 0
    while kills < 20:
        process = context.Process(target=trees.main, args=(config(tmp_path / "killed", server),))
        at = policy.asked.total() + points.randint(1, len(needed) // 20)
        policy.on_request = lambda count, at=at, process=process: count == at and process.kill()
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        kills += 1
    policy.on_request = lambda count: None
    trees.main(config(tmp_path / "killed", server))
    assert set(policy.asked) == needed
    assert policy.asked.total() - len(needed) <= kills * 4  # only what was open when the process died
    assert dataset(tmp_path / "killed", tmp_path / "a") == dataset(tmp_path / "whole", tmp_path / "b")
    assert not (tmp_path / "killed" / "answers.jsonl").exists()


@pytest.mark.parametrize("estimator", ["omega", "flat"])
def test_sigint_finishes_what_is_open_and_the_same_command_goes_on(
    server: StandIn, policy: Policy, tmp_path: Path, estimator: str
) -> None:
    search = dataclasses.replace(SEARCH, estimator=estimator, solutions=1)
    asked_for = config(tmp_path / "run", server, search=search, in_flight=6)
    policy.seconds = 0.02
    policy.on_request = lambda count: count == 60 and os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(SystemExit) as stopped:
        trees.main(asked_for)
    assert stopped.value.code == EXIT_STOPPED
    assert policy.asked.total() < 60 + 6 * 10  # what six problems had asked for is finished, and no more is asked
    assert 0 < len(list(read_records(tmp_path / "run" / TREES))) < 30
    policy.on_request = lambda count: None
    trees.main(asked_for)
    assert max(policy.asked.values()) == 1
    assert len(TreeRun(tmp_path / "run")) == 30


def test_servers_that_are_away_for_a_while_cost_the_run_nothing(
    server: StandIn, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlprm.serving.client.PAUSES", (0.05, 0.2))
    trees.main(config(tmp_path / "whole", server))

    def leave(count: int) -> None:
        if count == len(needed) + 60:
            server.away = True
            threading.Timer(1.0, lambda: setattr(server, "away", False)).start()

    needed = set(policy.asked)
    policy.on_request = leave
    trees.main(config(tmp_path / "away", server))
    assert dataset(tmp_path / "away", tmp_path / "a") == dataset(tmp_path / "whole", tmp_path / "b")


def test_shards_make_the_dataset_of_the_whole_run(server: StandIn, policy: Policy, tmp_path: Path) -> None:
    trees.main(config(tmp_path / "whole", server))
    for shard in ("1/4", "0/4", "3/4"):
        trees.main(config(tmp_path / "parts", server, shard=shard))
    with pytest.raises(ValueError, match=r"parts lacks shard 2 of 4; run `python -m data_synth.trees --shard 2/4`"):
        TreeRun(tmp_path / "parts")
    trees.main(config(tmp_path / "parts", server, shard="2/4"))
    assert dataset(tmp_path / "parts", tmp_path / "a") == dataset(tmp_path / "whole", tmp_path / "b")
    names = [path.name for path in (tmp_path / "parts" / IMAGES).iterdir()]
    assert len(names) == 30


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ("4/4", "shard '4/4' is not i/n with i from 0 to n-1"),
        ("one", "shard 'one' is not i/n"),
        ("9/10", "shard 9/10 is empty; for 6 units use at most 6 shards, or set a smaller unit"),
    ],
)
def test_a_shard_that_is_none_is_refused(shard: str, message: str, server: StandIn, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        trees.main(config(tmp_path / "run", server, shard=shard))
    assert not (tmp_path / "run").exists()


def test_shards_of_different_runs_are_not_mixed(server: StandIn, policy: Policy, tmp_path: Path) -> None:
    trees.main(config(tmp_path / "parts", server, shard="0/2"))
    trees.main(config(tmp_path / "parts", server, shard="1/2", seed=1))
    with pytest.raises(ValueError, match=r"shard-1-of-2 was made with another config than .*shard-0-of-2"):
        TreeRun(tmp_path / "parts")


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(server: StandIn, policy: Policy, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        with pytest.raises(ValueError, match=r"cannot be written \(File too large\); make room, then run the same"):
            trees.main(config(tmp_path / "run", server))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    trees.main(config(tmp_path / "run", server))
    trees.main(config(tmp_path / "whole", server))
    assert dataset(tmp_path / "run", tmp_path / "a") == dataset(tmp_path / "whole", tmp_path / "b")


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_makes_the_dataset_of_the_whole_run(
    server: StandIn, policy: Policy, tmp_path: Path
) -> None:
    trees.main(config(tmp_path / "whole", server))
    policy.asked.clear()
    policy.seconds = 0.02
    killed = []

    def kill_one(count: int) -> None:
        if count >= 100 and not killed:
            killed.append(a_worker())
            killed[0].kill()

    policy.on_request = kill_one
    with two_nodes() as address:
        trees.main(config(tmp_path / "cluster", server, ray=address, workers=2))
    assert killed
    assert dataset(tmp_path / "cluster", tmp_path / "a") == dataset(tmp_path / "whole", tmp_path / "b")


def test_a_cluster_that_is_not_there_is_named(server: StandIn, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(
        ValueError, match=r"no Ray cluster answers at '127\.0\.0\.1:1'; start one with `ray start --head`"
    ):
        trees.main(config(tmp_path / "run", server, ray="127.0.0.1:1"))


def test_no_problem_waits_for_another() -> None:
    """Items differ much in length; the next one starts as soon as one is done."""
    started: list[int] = []
    last = asyncio.Event()

    async def work(item: int) -> int:
        started.append(item)
        if item == 19:
            last.set()
        await (last.wait() if item == 0 else asyncio.sleep(0.001))
        return item

    async def main() -> list[int]:
        return [item async for item in in_window(range(20), work, 2, asyncio.Event())]

    assert sorted(asyncio.run(main())) == started == list(range(20))


def test_what_is_asked_beside_a_failure_is_still_answered() -> None:
    ended = []

    async def ask(seconds: float) -> float:
        await asyncio.sleep(seconds)
        if not seconds:
            raise Stopped
        ended.append(seconds)
        return seconds

    with pytest.raises(Stopped):
        asyncio.run(_of(all_answers(ask(s) for s in (0.5, 0.0, 0.02))))
    assert ended == [0.02, 0.5]
    assert asyncio.run(_of(all_answers(ask(s) for s in (0.5, 0.01)))) == [0.5, 0.01]


async def _of(awaited: Awaitable[list[float]]) -> list[float]:
    return await awaited


def test_what_fails_ends_the_run_and_what_is_stopped_has_no_result() -> None:
    async def work(item: int) -> int:
        await asyncio.sleep(0.001 * item if item <= 7 else 60)
        if item == 3:
            raise Stopped
        if item == 7:
            raise ValueError("seven")
        return item

    async def main() -> None:
        async for item in in_window(range(10), work, 10, asyncio.Event()):
            done.append(item)

    done: list[int] = []
    with pytest.raises(ValueError, match="seven"):
        asyncio.run(main())
    assert set(done) >= {0, 1, 2}
    assert not {3, 7, 8, 9} & set(done)
