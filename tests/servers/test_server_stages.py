"""Stages that sample from servers: their records, none of which contains a key."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from data_synth.search.config import TreesConfig, TreeSearchConfig
from data_synth.search.source import drawn_problems
from data_synth.trees import main as grow_trees
from eval.run import main as sample_candidates
from eval.runs.config import ProblemSetConfig, RunConfig
from tests.stand_in import KEY, Answer, Body, StandIn, as_asked, completion, config_of, open_on
from vlprm.runs.config import parse
from vlprm.runs.journal import read_records, refuse_unfinished
from vlprm.runs.pools import RECORDS
from vlprm.search import SearchConfig
from vlprm.serving.config import ModelConfig
from vlprm.tasks import TASKS, load_tasks


def test_the_key_reaches_the_server_and_nothing_else(
    server: StandIn, tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VLPRM_TEST_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    config = config_of(server, api_key_env="VLPRM_TEST_KEY")
    grow_trees(TreesConfig(tmp_path / "run", ModelConfig(str(backbone), config), ("count_grid",), problems=2, unit=1))
    assert server.keys == {f"Bearer {KEY}"}
    assert caplog.text
    assert KEY not in caplog.text
    assert "httpx2" not in {r.name for r in caplog.records}  # a line for each of many thousand calls
    assert not [f for f in (tmp_path / "run").rglob("*") if f.is_file() and KEY.encode() in f.read_bytes()]
    monkeypatch.delenv("VLPRM_TEST_KEY")
    with pytest.raises(ValueError, match="VLPRM_TEST_KEY is not set"):
        open_on(backbone, config)


@pytest.mark.parametrize(
    "flags",
    [
        ["--policy.server.base_urls", f"['http://me:{KEY}@host/v1']"],
        ["--policy.server.base_urls", f"['http://host/v1?key={KEY}']"],
        ["--policy.server.base_urls", "['http://host/v1']", "--policy.server.api_key_env", KEY],
        ["--policy.server.base_urls", "[]"],
    ],
)
def test_a_config_that_could_hold_a_key_is_refused_without_showing_it(flags: list[str]) -> None:
    with pytest.raises(ValueError, match="server") as caught:
        parse(TreesConfig, ["--run", "x", "--policy.server.model", "policy", *flags])
    assert KEY not in str(caught.value)


def test_stages_write_the_same_records_from_servers_that_answer_the_same(
    servers: Callable[[], StandIn], tmp_path: Path, backbone: Path
) -> None:
    """Pools come from one server and from two. Every second call of one solution fails: it is counted, and gives no
    label."""
    answer = TASKS["count_grid"].problem("test", 0).answer
    one, other = servers(), servers()
    one.reply = other.reply = lambda body: completion(f"[answer] {answer}", None)
    for name, config in {"one": config_of(one), "two": config_of(one, other)}.items():
        asked = (ProblemSetConfig("count_grid", problems=3),)
        methods, search = ("self_consistency",), SearchConfig(n=2, max_tokens=160)
        sample_candidates(RunConfig(tmp_path / name, ModelConfig(str(backbone), config), asked, methods, search))
    pools = [
        sorted(
            (r["problem"], [c["solution"] for c in r["candidates"]]) for r in read_records(tmp_path / name / RECORDS)
        )
        for name in ("one", "two")
    ]
    assert pools[0] == pools[1]
    assert [solution["stop"] for solution in pools[0][0][1]] == ["answer", "no_text"]
    policy = ModelConfig(str(backbone), config_of(one))
    grow_trees(TreesConfig(tmp_path / "trees", policy, ("count_grid",), problems=1))
    (tree,) = (record["tree"] for record in read_records(tmp_path / "trees" / "trees.jsonl"))
    assert (tree["root"]["mc_total"], tree["root"]["mc_valid"]) == (8, 1)
    assert [leaf for leaf, _ in tree["leaves"]] == [0]  # an empty answer does not end a solution


def test_a_tree_that_an_outage_spoilt_is_made_again_by_the_same_command(
    server: StandIn, tmp_path: Path, backbone: Path
) -> None:
    """Calls of one problem of three time out. The next run asks only for that problem."""
    policy = ModelConfig(str(backbone), config_of(server, timeout=2.0))
    config = TreesConfig(tmp_path / "trees", policy, ("count_grid",), problems=3)
    spoilt = drawn_problems(load_tasks(("count_grid",)), "train", 3)
    question = spoilt.problem(spoilt.ids[1]).question

    def outage(body: Body) -> Answer:
        if "n" in body and question in json.dumps(body):
            time.sleep(2.5)
        return as_asked(body)

    server.reply = outage
    grow_trees(config)
    path = tmp_path / "trees" / "trees.jsonl"

    def stops() -> list[dict[str, int]]:
        return [record["tree"]["stops"] for record in sorted(read_records(path), key=lambda record: record["at"])]

    assert [set(each) for each in stops()] == [{"answer"}, {"timeout"}, {"answer"}]
    server.reply, before = as_asked, len(server.asked)
    grow_trees(config)
    assert [set(each) for each in stops()] == [{"answer"}] * 3
    asked = [body for body in server.asked[before:] if "n" in body]
    assert asked
    assert all(question in json.dumps(body) for body in asked)
    refuse_unfinished(path, "data_synth.trees")
    before = len(server.asked)
    grow_trees(config)
    assert len(server.asked) == before


def test_no_problem_that_can_be_searched_is_no_success(tmp_path: Path) -> None:
    """All images are missing; once the row names one that exists, the same command goes on."""
    line = {"id": "7", "question": "How many?", "images": ["a.png"], "answer": "3", "answer_type": "integer"}
    (tmp_path / "problems.jsonl").write_text(json.dumps(line) + "\n")
    config = TreesConfig(tmp_path / "trees", ModelConfig("builtin/policy", device="cpu"))
    config = dataclasses.replace(
        config, problem_file=tmp_path / "problems.jsonl", search=TreeSearchConfig(root_rollouts=1, max_tokens=2)
    )
    with pytest.raises(ValueError, match=r"no problem can be searched .*the first: .*no image 'a\.png'"):
        grow_trees(config)
    Image.new("RGB", (64, 64)).save(tmp_path / "b.png")
    (tmp_path / "problems.jsonl").write_text(json.dumps({**line, "images": ["b.png"]}) + "\n")
    grow_trees(config)
    assert ["tree" in record for record in read_records(tmp_path / "trees" / "trees.jsonl")] == [True]
