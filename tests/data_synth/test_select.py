"""Selected solutions: ranked by their own values, near-duplicates left out, measured against the truth."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_synth import select
from data_synth.selected.candidates import Candidate, groups
from data_synth.selected.config import By, SelectConfig
from data_synth.selected.ranking import WORTH, selection
from data_synth.selected.rows import sft_rows
from tests.conftest import executed, solved
from tests.stored import pool_record, write_run
from tests.teacher import TeacherEngine
from train.policy.config import SftConfig
from train.policy.solutions import taught_problems
from vlprm.data.dataset import read_rows, row_paths, table_rows, write_dataset
from vlprm.images import png
from vlprm.metrics import grouped_difference, grouped_interval
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.loading import load_inputs
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.policy import Request
from vlprm.policy.rollout import rollouts
from vlprm.schema import Problem, Solution, StepScore
from vlprm.serving.config import ModelConfig
from vlprm.tasks import TASKS

PROBLEMS = [TASKS[name].problem("test", i) for i in range(4) for name in ("chart", "count_grid")]


@cache
def sampled(problem_id: str) -> tuple[Solution, ...]:
    problem = next(p for p in PROBLEMS if p.id == problem_id)
    return tuple(asyncio.run(rollouts(TeacherEngine(0.25), Request(problem, (), 8, problem.id, 0))))


def truth_of(problem: Problem, solution: Solution) -> list[StepScore]:
    """The truth of each step as its reward: exactly 1 or 0."""
    verdicts = TASKS[problem.task].verdicts(problem, solution.steps)
    return [StepScore(float(v is not None and v.correct), None, None, surprise=1.0) for v in verdicts]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of eval.run whose rewards are the truth."""
    records = [
        pool_record(at, p, sampled(p.id), [truth_of(p, s) for s in sampled(p.id)]) for at, p in enumerate(PROBLEMS)
    ]
    return write_run(tmp_path_factory.mktemp("pool") / "eval", records)


def selected(config: SelectConfig) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    select.main(config)
    return json.loads((config.run / "results.json").read_text()), read_rows(config.run / "selected.parquet")


def one(
    texts: str, rewards: Sequence[float | None], right: bool | None = True, problem: str = "p", answered: bool = True
) -> Candidate:
    correct = tuple(reward >= 0.5 for reward in rewards if reward is not None)
    return Candidate(problem, 0, 0, tuple(texts), tuple(rewards), correct, -1.0, answered, right, None)


def test_with_the_truth_as_reward_every_step_of_what_is_selected_is_right(pool: Path, tmp_path: Path) -> None:
    results, rows = selected(SelectConfig(tmp_path / "run", pool=pool, by="prm_min", keep=0.2, unlike=0.0))
    measures = results["measures"]
    assert (measures["prm_min"]["true"], measures["prm_min"]["ci"]) == (1.0, [1.0, 1.0])
    assert measures["outcome"]["right"] == 1.0
    assert measures["outcome"]["true"] < 1.0, "right answers with a wrong step are there to be found"
    assert measures["random"]["right"] < 1.0
    assert measures["outcome"]["difference"] == 1.0 - measures["outcome"]["true"]
    assert results["selected"] == sum(len(row["leaves"]) for row in rows) == measures["random"]["selected"]
    assert results["selected"] + sum(results["left_out"].values()) == results["solutions"] == 8 * len(PROBLEMS)
    card = (tmp_path / "run/README.md").read_text()
    assert f"like a better one: {results['left_out']['like a better one']}" in card
    select.main(SelectConfig(tmp_path / "run", pool=pool, by="prm_min", keep=0.2, unlike=0.0))  # finished


def test_every_row_keeps_its_own_values(pool: Path, tmp_path: Path) -> None:
    """Also in TRL's columns. A public collator gave all rows the value of the last."""
    config = SelectConfig(tmp_path / "run", pool=pool, by="mixed", keep=1.0, per_problem=8, unlike=0.0)
    _, rows = selected(config)
    found: set[float] = set()
    inputs = load_inputs(Path("vlprm/builtin/policy"))
    for row in rows:
        problem = next(p for p in PROBLEMS if p.id == row["id"])
        values = json.loads(row["meta"])["selected"]
        assert values == sorted(values, reverse=True)
        assert [value["value"] for value in sft_rows(row, inputs)] == values  # these tasks have no zooms
        for path, value in zip(row_paths(row), values, strict=True):
            stored = next(s for s in sampled(row["id"]) if s.steps == path.steps)
            rewards = [score.correct for score in truth_of(problem, stored)]
            assert path.right == (stored.answer == problem.answer)
            assert value == pytest.approx(sum(rewards) / len(rewards) + path.right)
            found.add(value)
    assert len(found) > 4
    assert {row["images"][0]["bytes"] for row in rows} == {p.images[0] for p in PROBLEMS}


def test_alpha_gives_the_two_pure_orders() -> None:
    wrong, right = (("ab", (0.9, 0.5)), ("gh", (0.0, 0.0))), (("cd", (0.2, 0.2)), ("ef", (0.6, 0.6)))
    candidates = [*(one(*of, False) for of in wrong), *(one(*of) for of in right)]
    order = {
        alpha: [c.texts[0] for c in selection(candidates, "mixed", alpha, 1.0, 9, 0.0, "0").candidates]
        for alpha in (0.0, 0.3, 1e9)
    }
    means = [c.texts[0] for c in selection(candidates, "prm_mean", 0.0, 1.0, 9, 0.0, "0").candidates]
    assert order == {0.0: ["a", "e", "c", "g"], 0.3: ["e", "a", "c", "g"], 1e9: ["e", "c", "a", "g"]}
    assert order[0.0] == means


def test_a_reward_of_zero_is_a_reward_and_none_is_not() -> None:
    """A public script drops exact zeros, so that a wrong step raises the mean."""
    assert WORTH["prm_mean"](one("ab", (1.0, 0.0)), 0.0) == 0.5
    assert WORTH["prm_min"](one("ab", (1.0, 0.0)), 0.0) == 0.0
    assert WORTH["prm_min"](one("ab", (1.0, None)), 0.0) is None
    assert WORTH["mixed"](one("ab", (1.0, 0.0), None), 1.0) is None
    made = selection([one("ab", (0.0, 0.0)), one("cd", (0.5, None))], "prm_min", 0.0, 1.0, 9, 0.0, "0")
    assert (made.values, made.left_out["without a value"]) == ([0.0], 1)


@pytest.mark.parametrize("by", WORTH)
def test_a_solution_without_an_answer_is_left_out_whatever_its_rewards(by: By) -> None:
    cut, whole = one("ab", (1.0, 1.0), None, answered=False), one("cd", (0.9, 0.2), False)
    made = selection([cut, whole], by, 0.1, 1.0, 9, 0.0, "0")
    assert (made.candidates, made.left_out["without an answer"]) == ([whole], 1)


def test_bis_prefers_mixed_solutions_with_reliable_right_steps() -> None:
    rewards = {"mixed": (1.0, 1.0, 0.0, 0.0), "unsure": (0.6, 0.6, 0.0, 0.0), "right": (1.0,) * 4, "wrong": (0.0,) * 4}
    worth = {name: WORTH["balanced"](one("abcd", of_steps), 0.05) for name, of_steps in rewards.items()}
    assert worth == pytest.approx({"mixed": 0.3, "unsure": 0.18, "right": 0.05, "wrong": 0.0})
    assert WORTH["balanced"](one("ab", (1.0, None)), 0.05) == pytest.approx(0.05)


def test_near_duplicates_and_crowds_are_left_out_before_the_share_is_taken() -> None:
    values = {"abcd": 0.9, "abdc": 0.8, "abce": 0.7, "abfg": 0.6, "hijk": 0.5}
    candidates = [one(texts, (value,)) for texts, value in values.items()]
    candidates += [one("abcd", (0.1,), problem="q"), one("lmno", (0.05,), problem="q")]
    made = selection(candidates, "prm_min", 0.0, 0.5, 2, 0.5, "0")
    assert made.left_out == {
        "without an answer": 0,
        "without a value": 0,
        "like a better one": 2,
        "more than per_problem": 1,
        "ranked lower": 2,
    }
    assert made.values == [0.9, 0.6]
    exact = selection(candidates, "prm_min", 0.0, 1.0, 9, 0.0, "0")
    assert exact.left_out["like a better one"] == 1, "equal solutions are left out even so"


def test_equal_solutions_are_in_an_order_of_the_seed() -> None:
    candidates = [one(letter, (0.5,)) for letter in "abcdefgh"]
    made = [selection(candidates, "random", 0.0, 0.5, 9, 0.0, seed).candidates for seed in "0123"]
    orders = {"".join(c.texts[0] for c in chosen) for chosen in made}
    assert len(orders) > 1


def test_a_policy_learns_the_selected_solutions(pool: Path, tmp_path: Path) -> None:
    _, rows = selected(SelectConfig(tmp_path / "run", pool=pool, by="mixed", keep=0.3, per_problem=2))
    taught = taught_problems(SftConfig(run=tmp_path, dataset=tmp_path / "run/selected.parquet"), Counter())
    texts = {tuple(s.text for s in t.steps) for problem in taught for t in problem.solutions}
    assert texts == {tuple(s.text for s in path.steps) for row in rows for path in row_paths(row) if path.right}


def test_a_row_of_a_dataset_keeps_the_selected_paths_with_their_labels(dataset: Path, tmp_path: Path) -> None:
    config = SelectConfig(tmp_path / "run", dataset=dataset, by="balanced", alpha=0.05, keep=0.5, per_problem=1)
    _, rows = selected(config)
    before = {row["id"]: row_paths(row) for row in read_rows(dataset)}
    for row in rows:
        (path,) = row_paths(row)
        (was,) = [p for p in before[row["id"]] if p.steps == path.steps]
        assert (path.labels, path.right, path.place) == (was.labels, was.right, 0)
        assert len(row["completions"]) == len(path.steps)
    assert 0 < len(rows) < len(before)


def test_models_score_a_pool_again_and_zooms_become_turns(backbone: Path, tmp_path: Path) -> None:
    """Rewards of a killed run are kept: the second time, nothing is scored."""
    save_reward_model(load_reward_model(backbone, new_head="step"), tmp_path / "prm", CheckpointConfig(head="step"))
    problem = TASKS["fine_print"].problem("test", 0)
    steps = tuple(executed(step) for step in solved(problem))
    records = [pool_record(0, problem, [Solution(problem.id, steps, problem.answer, "answer", 9)])]
    source = write_run(tmp_path / "eval", records)
    with pytest.raises(ValueError, match="none of 1 solutions has a value by prm_min, which needs rewards of steps"):
        select.main(SelectConfig(tmp_path / "none", pool=source, by="prm_min"))
    model = ModelConfig(str(tmp_path / "prm"))
    config = SelectConfig(
        tmp_path / "run", pool=source, by="prm_min", keep=1.0, reward_model=(model,), format="trl", policy=str(backbone)
    )
    select.main(config)
    stored = json.loads((config.run / "rewards.jsonl").read_text())["scores"][0]
    with pq.ParquetFile(config.run / "selected.parquet") as file:
        rows = list(table_rows(file))
    assert {row["value"] for row in rows} == {min(score["correct"] for score in stored)}
    zooms = sum(step.region is not None for step in steps)
    assert zooms > 0
    assert [len(row["images"]) for row in rows] == list(range(1, zooms + 2))
    assert [turn["role"] for turn in rows[-1]["prompt"]] == ["user", *["assistant", "user"] * zooms]
    texts = [row["completion"][0]["content"][0]["text"] for row in rows]
    assert "\n\n".join(texts) == "\n\n".join(step.text for step in steps)
    (config.run / "results.json").unlink()
    (tmp_path / "prm/model.safetensors").rename(tmp_path / "prm/weights")  # no model can be loaded now
    with pytest.raises(ValueError, match="was made from other inputs"):
        select.main(config)
    (tmp_path / "prm/weights").rename(tmp_path / "prm/model.safetensors")
    select.main(config)
    assert len((config.run / "rewards.jsonl").read_text().splitlines()) == 1


def test_a_problem_that_a_model_refuses_has_no_rewards_and_the_others_have(
    dataset: Path, backbone: Path, tmp_path: Path
) -> None:
    save_reward_model(load_reward_model(backbone, new_head="step"), tmp_path / "prm", CheckpointConfig(head="step"))
    lost, *others = read_rows(dataset)[:3]
    thin = png(Image.new("RGB", (4, 2000)))  # no Qwen-VL reads such an image
    path, model = tmp_path / "thin.parquet", ModelConfig(str(tmp_path / "prm"))
    write_dataset(path, [{**lost, "images": [{"bytes": thin, "path": None}]}, *others])
    config = SelectConfig(tmp_path / "run", dataset=path, by="prm_min", keep=1.0, reward_model=(model,))
    results, rows = selected(config)
    assert {row["id"] for row in rows} == {row["id"] for row in others}
    assert results["left_out"]["without a value"] == len(lost["leaves"])


def test_mistakes_are_named(pool: Path, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give a pool or a dataset to select from, and not both"):
        select.main(SelectConfig(tmp_path / "run", pool=pool, dataset=dataset))
    with pytest.raises(ValueError, match="give a pool or a dataset"):
        select.main(SelectConfig(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"keep 0.001 of \d+ solutions is none; raise keep"):
        select.main(SelectConfig(tmp_path / "run", pool=pool, keep=0.001))
    with pytest.raises(ValueError, match="has a value by likeliest, which needs surprise"):
        select.main(SelectConfig(tmp_path / "other", dataset=dataset, by="likeliest"))


def test_a_dataset_of_other_problems_has_no_measure(dataset: Path, tmp_path: Path) -> None:
    rows = [{**row, "meta": json.dumps({**json.loads(row["meta"]), "task": "own"})} for row in read_rows(dataset)]
    write_dataset(tmp_path / "d.parquet", rows)
    config = SelectConfig(tmp_path / "run", dataset=tmp_path / "d.parquet", by="random", keep=1.0)
    results, _ = selected(config)
    assert results["measures"] == {}
    assert all(c.true is None for group in groups(config, TASKS) for c in group.candidates)


def test_a_paired_difference_is_over_problems() -> None:
    first = [[1.0, 1.0], [0.0], [1.0], []] * 10
    low, high = grouped_difference(first, first)
    assert low == high == 0.0
    low, high = grouped_difference(first, [[0.0, 0.0], [0.0], [0.0], [0.0]] * 10)
    assert (low, high) == pytest.approx(grouped_interval([g for g in first if g]), abs=0.08)
