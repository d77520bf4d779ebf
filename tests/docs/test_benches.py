"""Every benchmark can be imported, and each that a claim reads gives the effects that the claim names."""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_synth.search.config import TreeSearchConfig
from data_synth.search.estimators import search
from data_synth.search.store import IMAGES, TREES, Searched, tree_record
from eval.run import main as evaluate
from eval.runs.config import RunConfig
from tests.docs.pages import ROOT
from tests.perf import (
    ablations,
    aggregations,
    label_curve,
    label_quality,
    label_schemes,
    label_sources,
    policy_arms,
    policy_learning,
    policy_pairs,
    tts,
    value_in_beams,
    vote,
    worlds,
)
from tests.perf.claims.__main__ import store, stored
from tests.perf.claims.table import CLAIMS, WORTH
from tests.perf.results import Effect
from tests.teacher import TeacherEngine
from vlprm.labels import judge_reliability
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.runs.config import parse
from vlprm.runs.folder import open_run
from vlprm.runs.journal import Records, finish
from vlprm.serving.config import ModelConfig
from vlprm.tasks import TASKS

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "tests/perf").rglob("*.py")
    if not path.name.startswith("__")
)
GAINED = {"gain": 1.0, "ci": [0.0, 2.0]}


@pytest.fixture(autouse=True)
def _own_tasks() -> Iterator[None]:
    """A benchmark adds its own task when it is imported."""
    tasks = dict(TASKS)
    yield
    TASKS.clear()
    TASKS.update(tasks)


@pytest.mark.parametrize("module", MODULES)
def test_a_benchmark_can_be_imported_and_is_a_program(module: str) -> None:
    assert import_module(module).__doc__


# --- effects of rows of the right form


def of_ablations() -> dict[str, Effect]:
    runs = [[[(0.9, "right"), (0.2, "perception")], [(0.8, "right"), (0.3, "reasoning")]]]
    return ablations.effects(dict.fromkeys(ablations.ABLATIONS, runs))


def of_schemes() -> dict[str, Effect]:
    by_risk = dict.fromkeys(label_schemes.RISKS, GAINED)
    return label_schemes.effects(
        [
            {"scheme": name, "problems": 9, "seeds": 2, "best_of_8_less": GAINED, "best_of_8_by_risk": by_risk}
            for name in label_schemes.SCHEMES
        ]
    )


def of_curve() -> dict[str, Effect]:
    less = {rival: {"points": 1.0, "ci": (0.0, 2.0)} for rival in label_curve.RIVALS}
    rows = [
        {"arm": arm, "trees": n, "problems": 9, "seeds": 1, "best_of_8_less": less}
        for n in (1, 2)
        for arm in label_curve.ARMS
    ]
    return label_curve.effects(rows)


def of_searches() -> dict[str, Effect]:
    right, minus = [1.0, 0.0], {unit: [0.5, 0.0] for unit in tts.UNITS}
    names = ("best_of_n", "whole_solution", *tts.UNSCORED, *tts.SEARCHES)
    return tts.effects(
        {name: {"right": right, "minus": minus} for name in names}, {"gain": 0.1, "ci": (0.0, 0.2), "problems": 9}
    )


def of_beams() -> dict[str, Effect]:
    return value_in_beams.effects({w: np.array([[100.0, 0.0]]) for w in value_in_beams.WEIGHTS})


def of_pairs() -> dict[str, Effect]:
    measures: policy_arms.Measures = {name: [1.0, 0.0] for name in ("right", "vote", "answered", "all_right")}
    runs = {arm: [measures] for arm in ("base", *policy_pairs.ARMS)}
    return policy_pairs.effects(policy_pairs.rows_of(runs, {arm: {} for arm in policy_pairs.ARMS}), 2, 1)


def of_arms(where: str, rows: list[dict[str, Any]], measures: tuple[str, ...], rivals: tuple[str, ...]) -> Any:
    keys = [f"{measure}_over_{rival}" for measure in measures for rival in rivals]
    rows = [{**row, **dict.fromkeys(keys, GAINED)} for row in rows]
    return policy_arms.effects_of(rows, where, measures, rivals, Namespace(problems=9, seeds=2))


def of_learning() -> dict[str, Effect]:
    settings = policy_learning.SETTINGS.items()
    rows = [{"setting": name, "arm": arm} for name, setting in settings for arm in setting.arms]
    return of_arms("setting", rows, ("right", "all_right"), ("base", *policy_learning.RIVALS.values()))


def of_looking() -> dict[str, Effect]:
    looking = import_module("tests.perf.policy_looking")
    rows = [{"start": start, "arm": arm} for start in looking.STARTS for arm in looking.ARMS]
    return of_arms("start", rows, ("right", "used"), ("start", "outcome"))


FORMS: Mapping[str, Callable[[], dict[str, Effect]]] = {
    "ablations": of_ablations,
    "label_schemes": of_schemes,
    "label_curve": of_curve,
    "tts": of_searches,
    "value_in_beams": of_beams,
    "policy_pairs": of_pairs,
    "policy_learning": of_learning,
    "policy_looking": of_looking,
}


@pytest.mark.parametrize("bench", FORMS)
def test_a_benchmark_names_the_effects_as_its_claims_do(bench: str) -> None:
    claimed = {claim.effect for claim in CLAIMS if claim.bench == bench}
    found = FORMS[bench]()
    assert claimed <= set(found)
    assert {found[name].unit for name in claimed} <= set(WORTH)


# --- benchmarks that run in seconds


@pytest.fixture
def working(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the recipes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(sys, "argv", ["bench"])
    return tmp_path


def assert_stored(bench: str) -> None:
    """The claims take what the bench wrote."""
    store(bench)
    kept = stored()["effects"]
    assert {name for name in kept if name.startswith(f"{bench}/")} == {
        f"{bench}/{claim.effect}" for claim in CLAIMS if claim.bench == bench
    }


def test_the_benchmark_of_label_rules_runs_on_a_few_trees(working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_run(label_quality.RUN, "", 0)
    records = Records(label_quality.RUN / TREES)
    for at in range(6):
        problem = TASKS["chart" if at % 2 else "count_grid"].problem("validation", at)
        tree = asyncio.run(search(problem, TeacherEngine(0.2), TreeSearchConfig(estimator="flat"), seed=1))
        records.append([tree_record(at, Searched(problem, tree), label_quality.RUN / IMAGES)])
    finish(records)
    monkeypatch.setattr(judge_reliability, "RESAMPLES", 2)
    monkeypatch.setattr(label_quality, "SEEDS", 1)
    monkeypatch.setattr(label_quality, "ACCURACIES", (0.9,))
    label_quality.main()
    assert_stored("label_quality")


def test_the_benchmark_of_sources_runs_on_a_few_trees(working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_reliability, "RESAMPLES", 1)
    monkeypatch.setattr(label_sources, "PROBLEMS", 16)
    monkeypatch.setattr(label_sources, "SEEDS", 1)
    label_sources.main()
    assert_stored("label_sources")


def test_the_benchmarks_of_stored_pools_run_on_two_worlds(working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two reward models score one pool of two problems."""
    monkeypatch.setattr(worlds, "SEEDS", 1)
    pool = None
    for run in worlds.RUNS.values():
        made = load_reward_model("builtin/backbone", new_head="step", reads_surprise=True)
        save_reward_model(made, run.with_name("prm"), made.config)
        flags = ["--search.n", "4", "--benchmarks", "[{name: count_grid, problems: 2}]"]
        asked = parse(RunConfig, ["--config", "demo/eval", *flags, "--run", str(run)])
        evaluate(replace(asked, reward_model=ModelConfig(str(run.with_name("prm"))), pool=pool))
        pool = pool or run
    aggregations.main()
    vote.main()
    for bench in ("aggregations", "vote"):
        assert_stored(bench)


def test_every_benchmark_of_a_claim_is_checked_here() -> None:
    ran = {"label_quality", "label_sources", "aggregations", "vote"}
    assert {claim.bench for claim in CLAIMS} == {*FORMS, *ran}
