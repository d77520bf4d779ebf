"""What recipes say to do with the models that they train: their commands of measuring run, at a smaller size."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from eval.runs.config import RunConfig
from tests.docs.pages import ROOT, Run
from tests.docs.test_commands import documented
from tests.model.test_implicit import moved
from tests.served_critic import serve_critic
from tests.stand_in import StandIn
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.runs.config import parse
from vlprm.runs.journal import read_records
from vlprm.tasks import TASKS

SMALL = ["--benchmarks", "[{name: count_grid, problems: 2}]", "--search.n", "4", "--policy.device", "cpu"]


def evaluated(folder: Path, run: Run, recipe: str, *flags: str) -> list[dict[str, list[dict[str, Any]]]]:
    """Runs each command of eval.run in a recipe's comment; its records by method."""
    found = []
    for command in documented(ROOT / "configs" / recipe):
        if command.name == "eval.run":
            words = [*shlex.split(command.flags), *SMALL, *flags]
            run(["-m", command.name, *words])
            by_method: dict[str, list[dict[str, Any]]] = {}
            for record in read_records(folder / parse(RunConfig, words).run / "records.jsonl"):
                by_method.setdefault(record["method"], []).append(record)
            found.append(by_method)
    return found


def scores_of(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [score for record in records for candidate in record["candidates"] for score in candidate["scores"]]


def test_a_value_weighs_as_much_as_its_recipe_says(folder: Path, run: Run) -> None:
    """The new head of the fixture has a value of one half and calls each step right with a third."""
    (by_method,) = evaluated(folder, run, "train/value.yaml")
    scores = scores_of(by_method["pool"])
    assert len(scores) > 8
    assert {round(score["correct"], 4) for score in scores} == {round((0.5 + 1 / 3) / 2, 4)}


def test_uncertain_rewards_are_lowered_and_samples_are_allotted(folder: Path, run: Run) -> None:
    (by_method,) = evaluated(folder, run, "train/beta_prm.yaml")
    assert list(by_method) == ["pool", "adaptive_best_of_n"]
    for records in by_method.values():
        assert len(records) == 2
        assert all(1 <= len(record["candidates"]) <= 4 for record in records)
        for score in scores_of(records):
            assert score["correct"] == pytest.approx(1 / 3 - 0.5 * score["sd"], abs=1e-6)
            assert score["sd"] > 0.1


def test_a_beam_narrows_in_the_first_command_and_not_in_the_second(folder: Path, run: Run) -> None:
    narrow, same = evaluated(folder, run, "eval/prm_bas.yaml")
    left = [[len(record["candidates"]) for record in of["step_beam"]] for of in (narrow, same)]
    assert left == [[1, 1], [2, 2]]


def test_candidates_are_ranked_by_an_implicit_head(folder: Path, run: Run) -> None:
    """Its log-ratios are those of a model that has moved away from its reference."""
    checkpoint = load_reward_model("builtin/backbone", new_head="implicit")
    moved(checkpoint.model)
    made = dataclasses.replace(checkpoint.config, provenance={"reference": "builtin/backbone"})
    save_reward_model(checkpoint, folder / "runs/implicit", made)
    (by_method,) = evaluated(folder, run, "demo/eval.yaml", "--reward_model", "runs/implicit", "--run", "runs/own")
    scores = scores_of(by_method["pool"])
    assert len({score["log_odds"] for score in scores}) > 4
    assert all(0 < score["correct"] < 1 for score in scores)


def test_critiques_of_candidates_are_measured_by_the_recipe(
    folder: Path, run: Run, server: StandIn, backbone: Path
) -> None:
    """Each critique of the served critic can be read, and each candidate has an error or has none."""
    run(["-m", "eval.run", "--config", "demo/eval", *SMALL])
    problems = [TASKS["count_grid"].problem("test", at) for at in range(2)]
    critic = serve_critic(server, backbone, folder / "served", problems)
    flags = ["--reward_model", critic, "--first", "0", "--problems", "2"]
    (command,) = documented(ROOT / "configs/demo/critiques.yaml")
    run(["-m", command.name, *shlex.split(command.flags), *flags])
    results = json.loads((folder / "runs/critic/critiques/results.json").read_text())
    assert (results["read"]["share"], results["read"]["of"]) == (1.0, 8)
    judged = [results.get(name, {"of": 0})["of"] for name in ("first_error_found", "no_error_found")]
    assert sum(judged) == 8
