"""Stages that sample from servers: what they write, and that a key is in none of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from data_synth.trees import TreesConfig
from data_synth.trees import main as grow_trees
from eval.run import main as sample_candidates
from eval.runs.problem_sets import ProblemSetConfig
from eval.runs.run_config import RunConfig
from tests.stand_in import KEY, StandIn, completion, config_of, open_on
from vlprm.runs.config import parse
from vlprm.runs.journal import read_records
from vlprm.runs.pools import RECORDS
from vlprm.search import SearchConfig
from vlprm.tasks import TASKS


def test_the_key_reaches_the_server_and_nothing_else(
    server: StandIn, tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VLPRM_TEST_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    config = config_of(server, api_key_env="VLPRM_TEST_KEY")
    grow_trees(TreesConfig(tmp_path / "run", str(backbone), ("count_grid",), problems=2, unit=1, server=config))
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
        ["--server.base_urls", f"['http://me:{KEY}@host/v1']"],
        ["--server.base_urls", f"['http://host/v1?key={KEY}']"],
        ["--server.base_urls", "['http://host/v1']", "--server.api_key_env", KEY],
        ["--server.base_urls", "[]"],
    ],
)
def test_a_config_that_could_hold_a_key_is_refused_without_showing_it(flags: list[str]) -> None:
    with pytest.raises(ValueError, match="server") as caught:
        parse(TreesConfig, ["--run", "x", "--server.model", "policy", *flags])
    assert KEY not in str(caught.value)


def test_stages_write_the_same_records_from_servers_that_answer_the_same(
    servers: Callable[[], StandIn], tmp_path: Path, backbone: Path
) -> None:
    """Pools from one server and from two, with every second call of one solution failing: counted, and no label."""
    answer = TASKS["count_grid"].problem("test", 0).answer
    one, other = servers(), servers()
    one.reply = other.reply = lambda body: completion(f"[answer] {answer}", None)
    for name, config in {"one": config_of(one), "two": config_of(one, other)}.items():
        asked = (ProblemSetConfig("count_grid", problems=3),)
        methods, search = ("self_consistency",), SearchConfig(n=2)
        sample_candidates(RunConfig(tmp_path / name, str(backbone), asked, methods, search, server=config))
    pools = [
        sorted(
            (r["problem"], [c["solution"] for c in r["candidates"]]) for r in read_records(tmp_path / name / RECORDS)
        )
        for name in ("one", "two")
    ]
    assert pools[0] == pools[1]
    assert [solution["stop"] for solution in pools[0][0][1]] == ["answer", "no_text"]
    grow_trees(TreesConfig(tmp_path / "trees", str(backbone), ("count_grid",), problems=1, server=config_of(one)))
    (tree,) = (record["tree"] for record in read_records(tmp_path / "trees" / "trees.jsonl"))
    assert (tree["root"]["mc_total"], tree["root"]["mc_valid"]) == (8, 1)
    assert [leaf for leaf, _ in tree["leaves"]] == [0]  # what wrote nothing ends no solution
