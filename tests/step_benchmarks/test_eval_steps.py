"""`python -m eval.steps`: what it scores, how it reports failures, and which runs may give a threshold."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eval import steps
from eval.step_scores.calibration import calibration, spread
from eval.step_scores.config import StepsConfig
from eval.step_scores.results import FIXED, measured_all, reward_measures
from eval.step_scores.rows import chosen, intervals
from eval.step_scores.shown import Shown
from tests.stand_in import Answer, Body, StandIn, completion, config_of
from tests.step_benchmarks.test_step_benchmarks import process_row, spoilt_row, write_rows
from tests.stored import pool_record, write_run
from tests.teacher import TeacherEngine
from vlprm.data.ablation import ablated, apart
from vlprm.errors import RecordError
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.policy import Request
from vlprm.policy.rollout import rollouts
from vlprm.schema import Problem
from vlprm.scoring.config import ScorerConfig
from vlprm.scoring.tree import score
from vlprm.serving.config import ModelConfig
from vlprm.step_benchmarks import BENCHMARKS
from vlprm.step_benchmarks.labelled import LabelledSolution, labelled
from vlprm.step_benchmarks.predictions import Prediction
from vlprm.tasks import TASKS

PROBLEMS = [TASKS[name].problem("test", i) for name in ("count_grid", "fine_print") for i in range(2)]


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run, engine = tmp_path_factory.mktemp("candidates"), TeacherEngine(0.1)
    pools = {p.id: asyncio.run(rollouts(engine, Request(p, (), 3, p.id, 0))) for p in PROBLEMS}
    return write_run(run, [pool_record(at, p, pools[p.id]) for at, p in enumerate(PROBLEMS)])


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "process_bench"
    folder.mkdir()
    rows = [process_row(id=f"gsm8k-{i}", problem=f"question {i}", label=i - 1) for i in range(4)]
    (folder / "gsm8k.json").write_text(json.dumps(rows))
    return folder


def config(data: Path, run: Path, **changes: Any) -> StepsConfig:
    return dataclasses.replace(StepsConfig("synthetic", data, run, unit=5), **changes)


def on_cpu(*folders: Path) -> tuple[ModelConfig, ...]:
    return tuple(ModelConfig(str(folder), device="cpu") for folder in folders)


def results_of(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "results.json").read_text()))


def rewards_of(run: Path) -> dict[str, list[float]]:
    lines = (run / "predictions.jsonl").read_text().splitlines()
    return {record["key"]: record["rewards"] for record in map(json.loads, lines)}


# --- scoring


def test_a_run_scores_every_solution_and_goes_on_where_it_was_killed(
    candidates: Path, reward_model: Path, tmp_path: Path
) -> None:
    ran = config(candidates, tmp_path / "run", reward_model=on_cpu(reward_model))
    steps.main(ran)
    whole, results = (ran.run / "predictions.jsonl").read_text(), results_of(ran.run)
    solutions = BENCHMARKS["synthetic"].load(candidates).solutions
    problems = {p.id: p for p in PROBLEMS}
    wanted = score(load_reward_model(reward_model), [(problems[s.problem_id], s.steps) for s in solutions])
    for solution, rewards in zip(solutions, wanted, strict=True):
        assert rewards_of(ran.run)[solution.key] == pytest.approx(rewards, abs=1e-5)
    assert (results["solutions"], results["no_result"]["solutions"]) == (12, 0)
    assert results["rewards"]["mixed_problems"] > 0
    assert set(results["official"][0]["measures"]["by_group"]) == {"count_grid", "fine_print"}
    (ran.run / "predictions.jsonl").write_text("".join(whole.splitlines(keepends=True)[:7]) + '{"key": "cou')
    (ran.run / "results.json").unlink()
    steps.main(ran)
    assert (ran.run / "predictions.jsonl").read_text() == whole
    assert results_of(ran.run) == results


def test_images_are_shown_removed_or_swapped(candidates: Path, reward_model: Path, tmp_path: Path) -> None:
    solutions = BENCHMARKS["synthetic"].load(candidates).solutions
    by_id = {p.id: p for p in PROBLEMS}
    others = dict(zip(by_id, [PROBLEMS[1], PROBLEMS[0], PROBLEMS[3], PROBLEMS[2]], strict=True))
    bare = [dataclasses.replace(by_id[s.problem_id], images=()) for s in solutions]
    foreign = [dataclasses.replace(by_id[s.problem_id], images=others[s.problem_id].images) for s in solutions]
    blind = [[dataclasses.replace(step, region=None) for step in s.steps] for s in solutions]
    assert blind != [list(s.steps) for s in solutions]  # there are zooms
    checkpoint = load_reward_model(reward_model)
    wanted = {
        "removed": score(checkpoint, list(zip(bare, blind, strict=True))),
        "swapped": score(checkpoint, [(p, s.steps) for p, s in zip(foreign, solutions, strict=True)]),
    }
    for mode, of_mode in wanted.items():
        run = tmp_path / mode
        steps.main(config(candidates, run, reward_model=on_cpu(reward_model), images=mode))
        for solution, rewards in zip(solutions, of_mode, strict=True):
            assert rewards_of(run)[solution.key] == pytest.approx(rewards, abs=1e-5)


def test_problems_of_text_alone_are_scored(texts: Path, reward_model: Path, tmp_path: Path) -> None:
    steps.main(config(texts, tmp_path / "run", benchmark="process_bench", reward_model=on_cpu(reward_model), rows=3))
    found = rewards_of(tmp_path / "run")
    solutions = BENCHMARKS["process_bench"].load(texts).solutions[:3]
    problems = [(Problem("", "", s.question, (), None, "word"), s.steps) for s in solutions]
    for solution, rewards in zip(solutions, score(load_reward_model(reward_model), problems), strict=True):
        assert found[solution.key] == pytest.approx(rewards, abs=1e-5)
    with pytest.raises(ValueError, match="the benchmark has no images, so none can be removed"):
        steps.main(
            config(
                texts, tmp_path / "r", benchmark="process_bench", reward_model=on_cpu(reward_model), images="removed"
            )
        )


def test_what_cannot_be_shown_has_no_result_and_the_others_go_on(reward_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "vlrm"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(PROBLEMS[0].images[0])
    (folder / "images" / "cut.png").write_bytes(PROBLEMS[0].images[0][:60])
    rows = [
        spoilt_row(id="fine"),
        spoilt_row(id="missing", image=["b.png"]),
        spoilt_row(id="cut", image=["cut.png"]),
        spoilt_row(id="control", question="what is <|im_end|>?"),
        spoilt_row(id="long", reasoning_error="STEP1: a\nSTEP2: " + "b 7 " * 3000),
    ]
    write_rows(folder / "location_error.jsonl", rows)
    steps.main(config(folder, tmp_path / "run", benchmark="vlrm_bench", reward_model=on_cpu(reward_model)))
    results = results_of(tmp_path / "run")
    causes = {"image_missing": 1, "image_unreadable": 1, "control_token": 1, "unread_step": 1}
    assert (results["no_result"]["solutions"], results["no_result"]["causes"]) == (4, causes)
    (official,) = results["official"]
    readings = ("measures", "results_alone", "were_no_results_false")
    assert [official[reading]["by_group"]["location_error"]["steps"] for reading in readings] == [10, 2, 10]
    assert (
        official["were_no_results_false"]["by_group"]["location_error"]["F1_w"]
        < (official["results_alone"]["by_group"]["location_error"]["F1_w"])
    )
    assert results["rewards"]["steps"] == 2


def test_a_model_is_shown_steps_without_words_or_without_those_before(
    candidates: Path, reward_model: Path, tmp_path: Path
) -> None:
    """Each step keeps its place: its reward is that of the shown step, read alone or after the steps before it."""
    checkpoint, found = load_reward_model(reward_model), {}
    solutions = BENCHMARKS["synthetic"].load(candidates).solutions
    problems = {p.id: p for p in PROBLEMS}
    for words, history in (("removed", "kept"), ("only", "removed"), ("kept", "removed")):
        run = tmp_path / f"{words}_{history}"
        shown = {"words": words, "history": history}
        steps.main(config(candidates, run, reward_model=on_cpu(reward_model), **shown))
        assert {name: results_of(run)[name] for name in shown} == shown
        rewards = found[words, history] = rewards_of(run)
        for solution in solutions[::5]:
            problem, cut = problems[solution.problem_id], ablated(solution.steps, words)  # type: ignore[arg-type]
            expected = [one for part in apart(cut, history) for one in score(checkpoint, [(problem, part)])[0]]  # type: ignore[arg-type]
            assert rewards[solution.key] == pytest.approx(expected, abs=1e-5)
            assert len(expected) == len(solution.steps) == len(solution.correct)
    assert len({json.dumps(rewards) for rewards in found.values()}) == 3
    for name, how in (("words", "only"), ("history", "removed")):
        with pytest.raises(
            ValueError, match=f"--{name} {how} changes the input of a reward model; remove --predictions"
        ):
            steps.main(config(candidates, tmp_path / "x", predictions=tmp_path / "p.jsonl", **{name: how}))


def test_an_image_is_never_swapped_with_itself_nor_with_one_that_is_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "vlrm"
    (folder / "images").mkdir(parents=True)
    names = ["a.png", "a.png", "gone.png", "b.png"]
    for name, problem in zip(("a.png", "b.png"), PROBLEMS, strict=False):
        (folder / "images" / name).write_bytes(problem.images[0])
    write_rows(folder / "location_error.jsonl", [spoilt_row(id=str(i), image=[n]) for i, n in enumerate(names)])
    loaded = BENCHMARKS["vlrm_bench"].load(folder)
    swapped = Shown(loaded, loaded.solutions, "swapped")
    a, b = PROBLEMS[0].images, PROBLEMS[1].images
    assert [swapped.images_of(loaded.solutions[i]) for i in (0, 1, 3)] == [b, b, a]
    removed = Shown(loaded, loaded.solutions, "removed")
    assert removed.images_of(loaded.solutions[0]) == ()
    for mode in (swapped, removed):
        with pytest.raises(RecordError, match="there is no image"):
            mode.images_of(loaded.solutions[2])


# --- thresholds


def test_a_threshold_comes_from_other_solutions_of_the_same_model(
    candidates: Path, texts: Path, reward_model: Path, tmp_path: Path
) -> None:
    steps.main(config(candidates, tmp_path / "other", reward_model=on_cpu(reward_model)))
    here = config(texts, tmp_path / "here", benchmark="process_bench", reward_model=on_cpu(reward_model))
    steps.main(dataclasses.replace(here, threshold_from=tmp_path / "other"))
    fixed, other = results_of(here.run)["official"]
    assert (fixed["threshold"], fixed["origin"]) == (0.5, FIXED.origin)
    best = results_of(tmp_path / "other")["threshold_for_other_data"]["threshold"]
    assert (other["threshold"], other["origin"]) == (best, "best on synthetic")
    with pytest.raises(ValueError, match="contains solutions that are measured here"):
        steps.main(
            config(candidates, tmp_path / "x", reward_model=on_cpu(reward_model), threshold_from=tmp_path / "other")
        )
    another = tmp_path / "another"
    save_reward_model(load_reward_model(reward_model), another, CheckpointConfig(head="step", aggregation="mean"))
    with pytest.raises(ValueError, match="used another model than"):
        steps.main(dataclasses.replace(here, reward_model=on_cpu(another), threshold_from=tmp_path / "other"))
    assert not (tmp_path / "x").exists()


# --- stored predictions


def test_stored_rewards_are_measured_as_those_of_a_checkpoint(
    candidates: Path, reward_model: Path, tmp_path: Path
) -> None:
    steps.main(config(candidates, tmp_path / "scored", reward_model=on_cpu(reward_model)))
    stored = tmp_path / "scored" / "predictions.jsonl"
    steps.main(config(candidates, tmp_path / "stored", predictions=stored))
    assert results_of(tmp_path / "stored") == results_of(tmp_path / "scored")


def test_stored_verdicts_need_no_threshold(texts: Path, tmp_path: Path) -> None:
    stored = write_rows(tmp_path / "p.jsonl", [{"id": "gsm8k-0", "prediction": -1}, {"id": "gsm8k-1", "prediction": 1}])
    steps.main(config(texts, tmp_path / "run", benchmark="process_bench", predictions=stored))
    results = results_of(tmp_path / "run")
    (official,) = results["official"]
    assert (official["threshold"], results["no_result"]["causes"]) == (None, {"missing": 2})
    row = official["measures"]["by_group"]["gsm8k"]
    assert (row["n_error"], row["error_hits"], row["n_correct"], row["correct_hits"]) == (3, 0, 1, 1)
    assert "rewards" not in results
    (tmp_path / "math.json").write_text(json.dumps([process_row(id="math-0")]))
    ran = config(tmp_path, tmp_path / "x", benchmark="process_bench", predictions=write_rows(tmp_path / "q.jsonl", []))
    with pytest.raises(ValueError, match="has no rewards to choose a threshold from"):
        steps.main(dataclasses.replace(ran, threshold_from=tmp_path / "run"))


# --- other sources of rewards


def test_an_ensemble_reports_its_spread(texts: Path, reward_model: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    checkpoint = load_reward_model(reward_model)
    torch.nn.init.normal_(checkpoint.model.score.weight, std=0.5, generator=torch.Generator().manual_seed(1))
    save_reward_model(checkpoint, second, CheckpointConfig(head="step"))
    models = on_cpu(reward_model, second)
    steps.main(config(texts, tmp_path / "both", benchmark="process_bench", reward_model=models))
    for model, run in zip(models, ("one", "two"), strict=True):
        steps.main(config(texts, tmp_path / run, benchmark="process_bench", reward_model=(model,)))
    for key, rewards in rewards_of(tmp_path / "both").items():
        pairs = list(zip(rewards_of(tmp_path / "one")[key], rewards_of(tmp_path / "two")[key], strict=True))
        assert rewards == pytest.approx([(a + b) / 2 for a, b in pairs], abs=1e-5)
        line = (tmp_path / "both" / "predictions.jsonl").read_text().splitlines()[int(key[-1])]
        assert json.loads(line)["spreads"] == pytest.approx([abs(a - b) / 2 for a, b in pairs], abs=1e-5)
    assert results_of(tmp_path / "both")["ensemble"]["mean_spread"] > 0
    assert "ensemble" not in results_of(tmp_path / "one")


def test_a_served_judge_is_measured_like_a_reward_model(texts: Path, tmp_path: Path, server: StandIn) -> None:
    def reply(body: Body) -> Answer:
        asked = body["messages"][0]["content"][-1]["text"]
        return completion("no idea" if "question 2" in asked else '{"first_wrong": 1}')

    server.reply = reply
    judge = (ModelConfig("any/name", config_of(server)),)
    ran = config(texts, tmp_path / "run", benchmark="process_bench", reward_model=judge)
    ran = dataclasses.replace(ran, scorer=ScorerConfig("first_error", critiques=1))
    steps.main(ran)
    results = results_of(ran.run)
    assert results["no_result"]["causes"] == {"unread_step": 1}
    assert {reward for rewards in rewards_of_all(ran.run) for reward in rewards} == {0.0}
    assert results["calibration"]["ece"] == pytest.approx(results["rewards"]["share_correct"])
    other = dataclasses.replace(ran, run=tmp_path / "x", groups=("gsm8k",), threshold_from=ran.run, rows=1)
    (texts / "gsm8k.json").write_text(json.dumps([process_row(id="gsm8k-9", problem="question 9")]))
    steps.main(other)
    named = (ModelConfig("any/name", dataclasses.replace(config_of(server), model="another")),)
    with pytest.raises(ValueError, match="scored steps in another way"):
        steps.main(dataclasses.replace(other, run=tmp_path / "y", reward_model=named))


def rewards_of_all(run: Path) -> list[list[float]]:
    records = map(json.loads, (run / "predictions.jsonl").read_text().splitlines())
    return [record["rewards"] for record in records if "rewards" in record]


def test_calibration_by_hand() -> None:
    solutions = [solution("0", "a", "p", (True, False)), solution("1", "b", "q", (True, None)), solution("2", "b", "r")]
    predictions = [Prediction((0.9, 0.3)), Prediction((0.5, 0.1)), Prediction(no_result="x")]
    found = calibration(solutions, predictions)
    assert found["ece"] == pytest.approx((0.1 + 0.3 + 0.5) / 3)
    assert found["brier"] == pytest.approx((0.1**2 + 0.3**2 + 0.5**2) / 3)
    assert found["reliability"] == [[0.3, 0.0, 1], [0.5, 1.0, 1], [0.9, 1.0, 1]]
    assert (found["by_group"]["b"]["ece"], found["by_group"]["b"]["steps"]) == (0.5, 1)
    assert calibration(solutions, [Prediction((1.5, 0.3)), *predictions[1:]]) == {}  # no probability
    spreads = [Prediction((0.9, 0.6), spreads=(0.1, 0.4)), Prediction((0.5, 0.1), spreads=(0.2, 0.9)), predictions[2]]
    assert spread(solutions, spreads) == {"mean_spread": pytest.approx(0.7 / 3), "auroc_of_false_calls": 1.0}
    assert spread(solutions, predictions) == {}


# --- the parts


def solution(key: str, group: str, problem: str = "p", correct: tuple[bool | None, ...] = (True,)) -> LabelledSolution:
    return labelled(key, problem, (), ["s"] * len(correct), correct, group)


def test_rows_are_taken_from_groups_in_turn() -> None:
    rows = [solution(f"{group}{i}", group) for group, count in (("a", 3), ("b", 1)) for i in range(count)]
    assert [s.key for s in chosen(rows, (), 0)] == ["a0", "a1", "a2", "b0"]
    assert [s.key for s in chosen(rows, (), 3)] == ["a0", "a1", "b0"]
    assert [s.key for s in chosen(rows, ("a",), 2)] == ["a0", "a1"]
    with pytest.raises(ValueError, match="unknown group 'c'; the data has a, b"):
        chosen(rows, ("c",), 0)


def test_reward_measures_by_hand() -> None:
    solutions = [
        solution("0", "g", "p", (True, True)),
        solution("1", "g", "p", (True, False)),
        solution("2", "g", "p", (False, None)),
        solution("3", "g", "p", (True, None)),  # unknown whether all steps are right
        solution("4", "g", "q", (True,)),
    ]
    rewards = [(0.9, 0.4), (0.8, 0.3), (0.5, 0.9), (0.7, 0.1), (0.6,)]
    found = reward_measures(solutions, [Prediction(r) for r in rewards])
    assert (found["steps"], found["mixed_problems"], found["within_problem_process_accuracy"]) == (7, 1, 0.5)
    assert found["auroc"] == pytest.approx((5 + 4) / 10)  # wrong steps have 0.3 and 0.5
    assert found["average_precision_error"] == pytest.approx((1 + 2 / 3) / 2)
    one_kind = reward_measures(solutions[4:], [Prediction((0.6,))])
    assert "auroc" not in one_kind
    assert "within_problem_process_accuracy" not in one_kind


def test_an_interval_is_over_problems_not_over_their_solutions() -> None:
    """Twenty solutions of one problem are resampled as one; twenty problems with one solution each vary."""
    right = [float(i % 2) for i in range(20)]
    for problems, width in ((1, 0.0), (20, 0.4)):
        solutions = [solution(str(i), "g", str(i % problems)) for i in range(20)]
        low, high = intervals(solutions, lambda chosen: {"share": float(np.mean([right[i] for i in chosen]))})["share"]
        assert high - low == pytest.approx(width, abs=0.1)
        assert low <= 0.5 <= high


def test_no_failure_can_look_better_than_results() -> None:
    """The official rule leaves failures out, which favours a model that fails."""
    solutions = [solution(str(i), "MMMU", correct=(True, i > 0)) for i in range(2)]
    found = measured_all(
        BENCHMARKS["visual_process_bench"], solutions, [Prediction((0.9, 0.1)), Prediction(no_result="x")], [FIXED]
    )
    (official,) = found["official"]
    assert official["measures"]["macro_f1"] == 1.0 == official["results_alone"]["macro_f1"]
    assert official["were_no_results_false"]["macro_f1"] == pytest.approx((2 / 4 + 2 / 4) / 2)
    assert (found["no_result"]["steps"], found["labelled_steps"]) == (2, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"benchmark": "odd"}, "unknown benchmark 'odd'; known: visual_process_bench, "),
        ({"reward_model": None}, "pass either --reward_model, which scores the solutions, or --predictions, not both"),
        ({"predictions": Path("p.jsonl")}, "or --predictions, not both"),
        ({"reward_model": None, "predictions": Path("p.jsonl"), "images": "swapped"}, "remove --predictions"),
        ({"reward_model": None, "predictions": Path("absent.jsonl")}, r"there is no file absent\.jsonl"),
    ],
)
def test_a_mistaken_command_is_refused_and_leaves_no_folder(
    candidates: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        steps.main(config(candidates, tmp_path / "run", **{"reward_model": ModelConfig("prm"), **changes}))
    assert not (tmp_path / "run").exists()
