"""Reward models against the vote: by hand on stored pools, and one pool for several reward models."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.compare import compared, main
from eval.compared.choosers import choosers_of
from eval.compared.lengths import by_length, limits_and_chains, longer_half
from eval.compared.measures import equal_cost, phi, values_of
from eval.run import main as run_methods
from eval.runs import worker
from eval.runs.pools import Pool
from eval.runs.results import Run, read_runs
from eval.tables.config import CompareConfig
from tests.eval.test_tables import reward_model, run_of, tiny
from vlprm.runs.journal import read_records
from vlprm.runs.pools import checksum_of
from vlprm.search.select import Candidate
from vlprm.search.tokens import UNITS

__all__ = ["reward_model"]  # a fixture
N, T, F = None, True, False
POOLS: list[list[bool | None]] = [
    [T, T, T, T],  # all agree
    [F, T, F, F],  # the vote is wrong, the second candidate's reward is the largest
    [F, T, F, T],  # a tie
    [N, F, N, N],  # more unreadable answers than others
    [T, F, T, F],  # a tie that the reward decides wrongly
]


def read(folder: Path, **changes: Any) -> Run:
    (one,) = read_runs([run_of(folder, POOLS, **changes)], "curve", pools=True)
    return one


def test_each_row_is_what_the_candidates_say(tmp_path: Path) -> None:
    found = compared([read(tmp_path / "run")], 0, 0.5)
    accuracies = {title: row["accuracy"] * len(POOLS) for title, row in found["rows"].items()}
    assert accuracies == pytest.approx({
        "random candidate": 1 + 0.25 + 0.5 + 0 + 0.5,
        "vote": 1 + 0 + 0.5 + 0 + 0.5,
        "vote, unreadable answers count": 1 + 0 + 0.5 + 0 + 0.5,
        "vote, ties by r": 1 + 0 + 1 + 0 + 0,
        "vote, by r unless more than 0.5 agree": 1 + 0 + 1 + 0 + 0,
        "vote, by r where any disagree": 1 + 1 + 1 + 0 + 0,
        "vote weighted by r": 1 + 1 + 1 + 0 + 0,
        "best of N by r": 1 + 1 + 1 + 0 + 0,
        "best of N by r, unreadable answers count": 1 + 1 + 1 + 0 + 0,
        "oracle": 1 + 1 + 1 + 0 + 1,
    })  # fmt: skip
    assert found["no_answer"] == 3
    asked = {title: row["asked"] for title, row in found["rows"].items() if "asked" in row}
    assert asked["vote"] == 0
    assert asked["vote, ties by r"] == asked["vote, by r unless more than 0.5 agree"] == pytest.approx(2 / 5)
    assert asked["vote, by r where any disagree"] == pytest.approx(3 / 5)
    assert asked["best of N by r"] == 1
    assert [row["problems"] for row in found["strata"]] == [2, 1, 0, 2]
    up_to_three_in_four = found["strata"][1]["rows"]["best of N by r"]
    assert up_to_three_in_four["difference"][0] == 1
    counts = found["shared_errors"]["best of N by r"]
    assert [counts[name] for name in ("both_right", "vote_alone", "own_alone", "both_wrong")] == [1.5, 0.5, 1.5, 1.5]


def test_unreadable_answers_that_count_are_never_right(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "run", [[T, N, N, F]], reward=lambda k: [0.2, 0.9, 0.1, 0.1][k])
    (one,) = read_runs([folder], "curve", pools=True)
    found = {way.title: way.value(("b", "0"), 4) for way in choosers_of([one], 0.5)}
    assert [found[title] for title in ("vote", "vote, unreadable answers count")] == [0.5, 0]
    assert [found[title] for title in ("best of N by r", "best of N by r, unreadable answers count")] == [1, 0]


def test_at_equal_cost_each_has_what_the_other_pays(tmp_path: Path) -> None:
    """A candidate costs the policy 4 tokens and what it reads after zooms (0, 1, 2, 3), the prompt 10, the reward model
    6 and then 3 a candidate: 4 votes cost 32, best of 2 costs 28, best of 3 costs 37, best of 4 costs 47."""
    one = read(tmp_path / "run")
    ways = choosers_of([one], 0.5)

    def in_tokens(n: int) -> dict[str, Any]:
        kept = [way for way in ways if way.title in ("vote", "best of N by r", "vote, ties by r")]
        values = {way.title: values_of(way, list(one.pools), n) for way in kept}
        return {row["title"]: row for row in equal_cost(kept, values, n, UNITS[:1])}

    tokens = in_tokens(2)["best of N by r"]
    assert tokens["at_cost_of_vote"]["candidates"] == 1  # two votes cost 19
    assert tokens["vote_at_its_cost"]["candidates"] == 3  # for 28 tokens; four cost 32
    assert tokens["too_small"] == 0
    whole = in_tokens(4)
    assert whole["best of N by r"]["at_cost_of_vote"]["candidates"] == 2
    assert whole["best of N by r"]["too_small"] == len(POOLS)
    assert whole["vote, ties by r"]["too_small"] == 2  # only ties are scored
    assert whole["vote, ties by r"]["at_cost_of_vote"]["candidates"] < 4
    (ties,) = [way for way in ways if way.title == "vote, ties by r"]
    assert [spend.tokens for spend in ties.spends(("b", "2"), 4)] == [14, 28, 25, 47]


def test_phi_is_the_correlation_of_errors() -> None:
    first, second = np.array([1.0, 1, 0, 0]), np.array([1.0, 0, 1, 0])
    same, none = phi(first, first), phi(first, second)
    assert same is not None
    assert same["value"] == pytest.approx(1)
    assert none is not None
    assert none["value"] == pytest.approx(0)
    assert none["ci"][0] < 0 < none["ci"][1]
    assert phi(first, np.ones(4)) is None


def chains(*pairs: tuple[int, bool | None]) -> Pool:
    """A pool of candidates with these tokens, each right or not."""
    stored = tuple(Candidate(None if right is None else str(right), None, None) for _, right in pairs)
    spent = tuple((tokens, 0, 0) for tokens, _ in pairs)
    return Pool("b", "p", "b", stored, tuple(right for _, right in pairs), spent, 10)


def test_a_limit_of_tokens_cuts_longer_candidates() -> None:
    pools = {
        ("b", "0"): chains((10, F), (40, T), (40, T), (20, T)),
        ("b", "1"): chains((10, T), (20, T), (30, T), (40, T)),
    }
    found = limits_and_chains(pools, 4)
    cells = {(cell["limit"], cell["chains"]): cell for cell in found["cells"]}
    assert cells[40, 4]["accuracy"] == 1
    assert cells[40, 4]["tokens"] == pytest.approx((120 + 110) / 2)
    assert min(limit for limit, _ in cells) < 20
    low = min(limit for limit, _ in cells)
    assert cells[low, 4]["accuracy"] == 0.5  # the first problem has only its short, wrong candidate
    assert cells[low, 4]["tokens"] == pytest.approx(10 + (10 + 3 * low))
    assert found["best_at_equal_tokens"][-1]["difference"][0] >= 0
    half = longer_half({("b", "0"): chains((10, F), (20, F), (30, T), (40, T)), ("b", "1"): chains((5, T), (5, F))}, 4)
    assert half["of"] == 1  # the other problem has candidates of one length
    assert half["difference"][0] == 1
    quarters = by_length(pools, 4)
    assert sum(quarter["candidates"] for quarter in quarters) == 8
    assert quarters[0]["tokens"] == [10, 10]
    assert quarters[0]["accuracy"] == 0.5


def test_runs_of_other_candidates_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run_of(tmp_path / name, POOLS, reward_model={"checkpoint": f"{name}/prm"}) for name in ("a", "b")]
    other = run_of(tmp_path / "c", [*POOLS[::-1], [T, N]], reward_model={"checkpoint": "c/prm"})
    checksum = checksum_of(runs[:1])
    assert checksum == checksum_of(runs[1:]) != checksum_of([other])
    main(CompareConfig(tuple(runs), tmp_path / "compare", checksum=checksum))
    said = capsys.readouterr().out
    assert f"pool {checksum}: 5 problems, 4 candidates each; 3 candidates without an answer" in said
    assert "best of N by a" in said
    assert "best of N by b" in said
    assert json.loads((tmp_path / "compare/results.json").read_text())["checksum"] == checksum
    with pytest.raises(ValueError, match=r"p \+ c has the pool \w{16}, not \w{16}; score the candidates of one run"):
        main(CompareConfig((*runs, other), tmp_path / "refused"))
    with pytest.raises(ValueError, match=r"has the pool .*, not 0123"):
        main(CompareConfig(tuple(runs), tmp_path / "refused", checksum="0123"))
    with pytest.raises(ValueError, match="n is 5, but a problem has fewer candidates"):
        main(CompareConfig(tuple(runs), tmp_path / "refused", n=5))
    assert not (tmp_path / "refused").exists()
    with pytest.raises(ValueError, match="has no reward model; set reward_model"):
        compared(read_runs([run_of(tmp_path / "d", POOLS, reward_model=None)], "curve", pools=True), 0, 0.5)


def test_a_stored_pool_is_scored_without_its_policy(
    tiny_backbone: Callable[[str], Path],
    reward_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny(tmp_path / "pool", tiny_backbone("qwen2_5_vl"), reward_model, methods=("best_of_n",), whole=True)
    run_methods(config)
    checksum = checksum_of([config.run])
    monkeypatch.setattr(worker, "open_models", None)  # the policy is not opened
    again = dataclasses.replace(config, run=tmp_path / "again", pool=config.run, checksum=checksum)
    run_methods(again)
    first, second = (list(read_records(run / "records.jsonl")) for run in (config.run, again.run))
    for stored, scored in zip(first, second, strict=True):
        assert scored["cost"].pop("seconds") is None
        stored["cost"].pop("seconds")
        stored["cost"]["policy_calls"] = 0
        assert scored == stored
    fewer = dataclasses.replace(
        again, run=tmp_path / "fewer", search=dataclasses.replace(config.search, n=2), checksum=""
    )
    run_methods(fewer)
    for stored, scored in zip(first, read_records(fewer.run / "records.jsonl"), strict=True):
        kept = [c["solution"] for c in stored["candidates"][:2]]
        assert [c["solution"] for c in scored["candidates"]] == kept
        assert scored["cost"]["policy_sampled"] == sum(solution["tokens"] for solution in kept)
        prompt = stored["cost"]["policy_read"] - sum(c["solution"]["read"] for c in stored["candidates"])
        assert scored["cost"]["policy_read"] == prompt + sum(solution["read"] for solution in kept)
    with pytest.raises(ValueError, match=f"has the checksum {checksum}, not 0123; give the pool of that checksum"):
        run_methods(dataclasses.replace(again, run=tmp_path / "no", checksum="0123"))
    for changes, message in (
        ({"search": dataclasses.replace(config.search, seed=5)}, r"sampled with search.seed 0, not 5; set search.seed"),
        ({"search": dataclasses.replace(config.search, n=9)}, "has 3 candidates for .*, fewer than search.n 9"),
        ({"methods": ("best_of_n", "step_beam")}, "step_beam samples its own candidates; with pool, use methods among"),
        ({"reward_model": None, "methods": ("self_consistency",), "whole": False}, "pool gives candidates to score"),
        ({"pool": None}, "checksum is that of a pool; set pool"),
    ):
        with pytest.raises(ValueError, match=message):
            run_methods(dataclasses.replace(again, run=tmp_path / "no", **changes))
