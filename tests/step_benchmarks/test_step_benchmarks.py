"""Step benchmarks: their rows, their official numbers on stored predictions, and the errors for broken rows or
lines."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.stored import pool_record, write_run
from vlprm.errors import RecordError
from vlprm.metrics import auroc, average_precision, best_threshold, class_f1s
from vlprm.schema import Solution, Step
from vlprm.search.select import Candidate, best_of_n, majority
from vlprm.step_benchmarks import BENCHMARKS
from vlprm.step_benchmarks.labelled import Calls, LabelledSolution
from vlprm.step_benchmarks.predictions import Prediction
from vlprm.step_benchmarks.prm_bench import UNDEFINED
from vlprm.step_benchmarks.process_bench import first_wrong
from vlprm.step_benchmarks.stored import read_predictions
from vlprm.steps import parse_step
from vlprm.tasks import TASKS

DATA = Path(os.environ.get("VLPRM_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture
def data() -> Path:
    if not DATA.is_dir() and not os.environ.get("CI"):
        pytest.skip(f"{DATA} is not there; set VLPRM_DATA to the folder of packaged benchmarks")
    return DATA


def expected(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "expected.json").read_text()))


def agree(found: Any, wanted: Any) -> None:
    """Assert that all wanted numbers are met to 1e-9."""
    if isinstance(wanted, dict):
        for name, value in wanted.items():
            agree(found[name], value)
    else:
        assert found == pytest.approx(wanted, abs=1e-9)


def calls_of(name: str, folder: Path, predictions: Path) -> tuple[list[LabelledSolution], list[Calls]]:
    """The solutions for which the file has predictions, and those predictions."""
    solutions = BENCHMARKS[name].load(folder).solutions
    stored = read_predictions(predictions, BENCHMARKS[name], solutions)
    having = [s for s in solutions if stored[s.key].no_result != "missing"]
    return having, [stored[s.key].called(0.5) for s in having]


# --- the official numbers


@pytest.mark.parametrize(
    "name", ["gsm8k_final_answer_oracle", "gsm8k_noisy_1", "math_final_answer_oracle", "math_noisy_1"]
)
def test_process_bench_scores_as_its_own_code_does(data: Path, name: str) -> None:
    folder = data / "processbench"
    found = calls_of("process_bench", folder, folder / "synthetic_predictions" / f"{name}.jsonl")
    measures = BENCHMARKS["process_bench"].measured(*found)
    wanted = {measure: value for measure, value in expected(folder)[name].items() if measure != "printed"}
    agree(measures["by_group"][name.partition("_")[0]], wanted)
    assert measures["f1_mean"] == pytest.approx(wanted["f1"])


def test_prm_bench_loads_and_scores_as_its_own_code_does(data: Path) -> None:
    folder = data / "prmbench"
    numbers = expected(folder)
    noisy = calls_of("prm_bench", folder, folder / "synthetic_predictions" / "noisy_11.jsonl")
    assert Counter(s.group for s in noisy[0]) == numbers["_loader"]["by_class"]
    for name, calls in (("noisy", noisy[1]), ("all_valid", [[True] * len(s.steps) for s in noisy[0]])):
        measures = BENCHMARKS["prm_bench"].measured(noisy[0], calls)
        agree(measures, {**numbers[name]["total"], "prmscore": numbers[name]["prmscore_overall"]})
        agree({k: row["prmscore"] for k, row in measures["by_group"].items()}, numbers[name]["prmscore_by_class"])
        assert measures["steps"] == numbers["_loader"]["steps_without_the_class_correct"]
    assert measures["negative_precision"] == UNDEFINED


def test_an_original_of_which_nothing_is_called_valid_has_no_likeness(tmp_path: Path) -> None:
    original = {"original_question": "?", "original_process": ["a", "b"]}
    rows = [changed_row(idx=idx, classification="redundency", **original) for idx in "pq"]
    write_rows(tmp_path / "redundency.jsonl", rows)
    solutions = BENCHMARKS["prm_bench"].load(tmp_path).solutions
    assert [s.key for s in solutions] == ["redundency_p", "correct_p", "redundency_q", "correct_q"]
    calls = [[True, False], [True, True], [True, True], [False, False]]
    measures = BENCHMARKS["prm_bench"].measured(solutions, calls)
    assert measures["similarity"] == 0.5  # the similarity of p alone
    assert measures["by_group"]["correct"]["similarity"] == UNDEFINED


def test_vlrm_bench_scores_as_its_own_code_does(data: Path) -> None:
    folder = data / "vlrmbench"
    numbers = expected(folder)["location_error"]
    solutions, noisy = calls_of("vlrm_bench", folder, folder / "synthetic_predictions_location_error.jsonl")
    assert len(solutions) == numbers["rows"]
    for name, calls in (("noisy_prediction", noisy), ("all_correct_prediction", [None] * len(solutions))):
        agree(BENCHMARKS["vlrm_bench"].measured(solutions, calls)["by_group"]["location_error"], numbers[name])


def test_the_steps_of_vlrm_bench_are_those_that_were_spoilt(data: Path) -> None:
    """`step_list` has the right steps; with these labels, it would call right steps wrong."""
    labelled = BENCHMARKS["vlrm_bench"].load(data / "vlrmbench")
    rows = [json.loads(line) for line in (data / "vlrmbench" / "location_error.jsonl").read_text().splitlines()]
    words = lambda text: "".join(filter(str.isalnum, text))  # noqa: E731
    for row, solution in zip(rows, labelled.solutions, strict=True):
        for right, step, correct in zip(row["step_list"], solution.steps, solution.correct, strict=True):
            assert (words(right) == words(step.text)) == correct
    shown = [s for s in labelled.solutions if s.images == ("MathVista/93.jpg",)]
    assert labelled.open_images(shown[0].images)[0].startswith(b"\xff\xd8")
    with pytest.raises(RecordError, match="there is no image"):
        labelled.open_images(("MathVista/0.jpg",))


# --- VisualProcessBench, whose rows are made here


def human_row(source: str, marks: list[int], **changes: Any) -> dict[str, Any]:
    steps = [f"step {k}" for k in range(len(marks))]
    return {
        "image": ["images/a.png"], "question": "<image1> How many?", "answer": "3", "policy_model": "m",
        "data_source": source, "response": {"steps": steps, "process_correctness": marks}, **changes,
    }  # fmt: skip


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_visual_process_bench_leaves_neutral_steps_out_and_weighs_sources_both_ways(tmp_path: Path) -> None:
    unclosed = human_row("WeMath", [1, 1, 1, -1], question="<image7 How many?")  # as one published row has it
    write_rows(tmp_path / "test.jsonl", [human_row("MMMU", [1, 0, -1]), unclosed])
    solutions = BENCHMARKS["visual_process_bench"].load(tmp_path).solutions
    assert [s.question for s in solutions] == ["How many?"] * 2
    assert [s.correct for s in solutions] == [(True, None, False), (True, True, True, False)]
    found = BENCHMARKS["visual_process_bench"].measured(solutions, [[True, True, True], [True, True, False, False]])
    mmmu = (2 / 3 + 0) / 2  # correct: 1 hit, 1 false alarm
    wemath = (4 / 5 + 2 / 3) / 2  # correct: 2 hits, 1 miss; wrong: 1 hit, 1 false alarm
    pooled = (2 * 3 / (2 * 3 + 1 + 1) + 2 * 1 / (2 * 1 + 1 + 1)) / 2
    agree(found["by_group"], {"MMMU": {"macro_f1": mmmu, "steps": 2}, "WeMath": {"macro_f1": wemath, "steps": 4}})
    by_steps = (2 * mmmu + 4 * wemath) / 6
    agree(found, {"macro_f1": pooled, "macro_f1_by_steps": by_steps, "macro_f1_by_source": (mmmu + wemath) / 2})
    lost = BENCHMARKS["visual_process_bench"].measured(solutions, [None, [True] * 4])
    assert (lost["steps"], list(lost["by_group"])) == (4, ["WeMath"])


# --- the truth of the drawn tasks


def test_the_truth_of_candidates_is_that_of_their_scenes(tmp_path: Path) -> None:
    problem = TASKS["count_grid"].problem("test", 0)
    texts = ["[perception] nonsense", f"[answer] {problem.answer}"], ["[answer] 99"]
    pool = [Solution(problem.id, tuple(map(parse_step, t)), t[-1][9:], "answer", 9) for t in texts]
    write_run(tmp_path, [pool_record(0, problem, pool)])
    labelled = BENCHMARKS["synthetic"].load(tmp_path)
    assert [s.key for s in labelled.solutions] == [f"{problem.id}/0", f"{problem.id}/1"]
    assert labelled.solutions[0].correct[0] is None
    assert labelled.solutions[1].correct == (False,)
    assert labelled.open_images(labelled.solutions[0].images) == problem.images


def test_one_error_is_in_the_place_of_a_true_step(tmp_path: Path) -> None:
    """The injected step is the first that is false, the same in every run, and no label follows it."""
    problems = [family.problem("test", i) for family in TASKS.values() for i in range(2)]
    write_run(tmp_path, [pool_record(at, p, []) for at, p in enumerate(problems)])
    made, again = (BENCHMARKS["one_error"].load(tmp_path) for _ in range(2))
    assert made.solutions == again.solutions
    assert {solution.group for solution in made.solutions} == set(TASKS)
    for problem, solution in ((p, s) for p in problems for s in made.solutions if s.key == p.id):
        first = first_wrong(solution.correct)
        verdicts = TASKS[problem.task].verdicts(problem, solution.steps)
        assert first_wrong([v and v.correct for v in verdicts]) == first < len(solution.steps) - 1
        assert set(solution.correct[first + 1 :]) == {None}
        assert made.open_images(solution.images) == problem.images


def test_one_error_counts_what_is_called_too_early_or_late(tmp_path: Path) -> None:
    steps = tuple(map(parse_step, ["[perception] a", "[reasoning] b", "[answer] c"]))
    solutions = [LabelledSolution(str(i), str(i), "?", (), steps, (True, False, None), "chart") for i in range(5)]
    calls = [[True, False, False], [False, False, True], [True] * 3, [True, True, False], None]
    found = BENCHMARKS["one_error"].measured(solutions, calls)
    agree(found, {"n": 5, "accuracy": 20, "too_early": 20, "too_late": 40})
    assert found["by_group"]["chart"]["accuracy"] == 20


# --- generic measures


def test_what_follows_a_first_wrong_step_has_no_label(tmp_path: Path) -> None:
    (tmp_path / "gsm8k.json").write_text(json.dumps([process_row(), process_row(id="gsm8k-1", label=-1)]))
    found = [s.correct for s in BENCHMARKS["process_bench"].load(tmp_path).solutions]
    assert found == [(True, False, None), (True, True, True)]


def test_first_wrong_ignores_steps_without_a_label() -> None:
    assert [first_wrong(marks) for marks in ([True, None, False], [None, None], [])] == [2, -1, -1]


def test_a_reward_of_the_threshold_is_called_correct() -> None:
    assert Prediction((0.4, 0.5, 0.6)).called(0.5) == (False, True, True)
    assert Prediction(calls=(True, False)).called(0.5) == (True, False)


def test_average_precision_takes_ties_together() -> None:
    assert average_precision([0.9, 0.8, 0.7], [True, False, True]) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision([0.5, 0.5, 0.5, 0.1], [True, False, False, False]) == pytest.approx(1 / 3)
    assert math.isnan(average_precision([0.5], [False]))


def test_the_best_threshold_is_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores, correct = rng.random(30).round(1), rng.random(30) < 0.6
        value, found = best_threshold(scores, correct)
        assert found == pytest.approx(max(sum(class_f1s(scores >= t, correct)) / 2 for t in scores))
        assert found == pytest.approx(sum(class_f1s(scores >= value, correct)) / 2)
    assert best_threshold([0.2, 0.7, 0.9], [False, True, True]) == (0.7, 1.0)
    assert auroc([0.2, 0.7, 0.9], [False, True, True]) == 1.0


# --- what is refused, and what has no result


def process_row(**changes: Any) -> dict[str, Any]:
    return {"id": "gsm8k-0", "problem": "?", "steps": ["a", "b", "c"], "label": 1, **changes}


def changed_row(**changes: Any) -> dict[str, Any]:
    return {
        "idx": "p_0", "classification": "circular", "modified_question": "?", "modified_process": ["a", "b"],
        "error_steps": [2], **changes,
    }  # fmt: skip


def spoilt_row(**changes: Any) -> dict[str, Any]:
    return {
        "id": "7", "image": ["a.png"], "question": "?", "reasoning_error": "STEP1: a\nSTEP2: b", "task_gt": [0, 1],
        **changes,
    }  # fmt: skip


BAD_ROWS = [
    ("process_bench", "gsm8k.json", [process_row(label=3)], "item 1: its label 3 is neither -1 nor one of its 3 steps"),
    ("process_bench", "gsm8k.json", [process_row(), process_row()], "two solutions 'gsm8k-0'"),
    ("process_bench", "gsm8k.json", [], "has no solutions"),
    ("prm_bench", "circular.jsonl", [changed_row(error_steps=["2"])], "line 1: its error_steps"),
    ("prm_bench", "circular.jsonl", [changed_row(classification="odd")], "'odd' is not one of redundency"),
    ("prm_bench", "circular.jsonl", [changed_row(), changed_row(idx=None)], "line 2: it has no idx"),
    ("vlrm_bench", "location_error.jsonl", [spoilt_row(task_gt=[0])], "7 has 1 labels for 2 steps"),
    ("vlrm_bench", "location_error.jsonl", [spoilt_row(task_gt=[0, 2])], "labels other than 0 and 1"),
    ("visual_process_bench", "test.jsonl", [human_row("MMMU", [1, 2])], "labels other than 1, -1 and 0"),
    (
        "visual_process_bench",
        "test.jsonl",
        [human_row("MMMU", [1], response={"steps": ["a", "b"], "process_correctness": [1]})],
        "test/1 has 1 labels for 2 steps",
    ),
]


@pytest.mark.parametrize(("name", "file", "rows", "message"), BAD_ROWS)
def test_a_benchmark_that_is_not_as_published_is_refused(
    tmp_path: Path, name: str, file: str, rows: list[Any], message: str
) -> None:
    write_rows(tmp_path / file, rows)
    if file.endswith(".json"):
        (tmp_path / file).write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=message):
        BENCHMARKS[name].load(tmp_path)


@pytest.mark.parametrize("name", ["process_bench", "prm_bench", "vlrm_bench", "visual_process_bench"])
def test_another_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="give the folder of"):
        BENCHMARKS[name].load(tmp_path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"id": "gsm8k-0", "prediction": 1}', '{"id": "gsm8k-1", "pre'], r"line 2 is not JSON \(cut short\?\)"),
        (['{"id": "gsm8k-9", "prediction": 1}'], "no solution 'gsm8k-9'"),
        (['{"id": "gsm8k-0", "prediction": 1}'] * 2, "line 2: 'gsm8k-0' occurs twice"),
        (['{"id": "gsm8k-0", "prediction": "1"}'], "'1' is not an integer"),
        (['{"key": "gsm8k-0", "rewards": ["a", "b", "c"]}'], "must be a list of numbers"),
        (['{"key": "gsm8k-0"}'], "it has no `rewards`"),
        (['["gsm8k-0"]'], "not a JSON object"),
    ],
)
def test_a_line_that_is_no_prediction_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    (tmp_path / "gsm8k.json").write_text(json.dumps([process_row()]))
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    benchmark = BENCHMARKS["process_bench"]
    with pytest.raises(ValueError, match=message):
        read_predictions(tmp_path / "p.jsonl", benchmark, benchmark.load(tmp_path).solutions)


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ({"rewards": [0.1, 0.2]}, "step_count"),
        ({"rewards": [0.1, math.nan, 0.2]}, "not_finite"),
        ({"rewards": None}, "null"),
        ({"no_result": "timeout"}, "timeout"),
        ({"calls": [True]}, "step_count"),
    ],
)
def test_a_failed_prediction_is_no_result_and_its_labels_stay(tmp_path: Path, said: dict[str, Any], cause: str) -> None:
    (tmp_path / "gsm8k.json").write_text(json.dumps([process_row(), process_row(id="gsm8k-1", label=-1)]))
    benchmark = BENCHMARKS["process_bench"]
    solutions = benchmark.load(tmp_path).solutions
    found = read_predictions(write_rows(tmp_path / "p.jsonl", [{"key": "gsm8k-0", **said}]), benchmark, solutions)
    assert [found[s.key].no_result for s in solutions] == [cause, "missing"]
    row = benchmark.measured(solutions, [None, [True] * 3])["by_group"]["gsm8k"]
    assert (row["n_error"], row["error_acc"], row["correct_acc"]) == (1, 0.0, 100.0)


@pytest.mark.parametrize(
    ("name", "record", "calls"),
    [
        ("process_bench", {"prediction": 1}, (True, False)),
        ("process_bench", {"prediction": -1}, (True, True)),
        ("process_bench", {"prediction": 2}, "no_such_step"),
        ("prm_bench", {"validity": False, "scores": {}}, "invalid"),
        ("prm_bench", {"scores": {"step_level_validity_labels": [1, 0]}}, (True, False)),
        (
            "prm_bench",
            {"scores": {"step_level_validity_labels": [1, 0], "step_level_redundancy_labels": [1, 0]}},
            (False, True),
        ),
        ("vlrm_bench", {"prediction": [0, 1]}, (True, False)),
        ("vlrm_bench", {"prediction": [0]}, "step_count"),
    ],
)
def test_the_layouts_of_the_field_are_read(name: str, record: dict[str, Any], calls: Any) -> None:
    steps = (Step("other", "a"), Step("other", "b"))
    read = BENCHMARKS[name].parse_prediction
    assert read is not None
    found = read(record, LabelledSolution("k", "p", "?", (), steps, (True, True), "circular"))
    assert (found.no_result or found.calls) == calls


# --- best of n on real candidates


def first_of(selector: Callable[[list[Candidate]], list[float]], pool: list[Candidate]) -> int:
    """The candidate that published code takes: the first of those that share the choice."""
    shares = selector(pool)
    return shares.index(max(shares))


def best_by_reward(pool: list[Candidate]) -> list[float]:
    return best_of_n(pool, "last")


def test_selectors_give_the_published_counts_on_real_candidates(data: Path) -> None:
    path = data / "best_of_n" / "qwen25_math_cot_100_first50.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for k in (1, 2, 4, 8):
        found: Counter[str] = Counter()
        for row in rows:
            pairs = zip(row["pred"][:k], row["pred_score"][:k], strict=True)
            pool = [Candidate(answer, tuple(rewards), None) for answer, rewards in pairs]
            found["rm@k"] += row["score"][first_of(best_by_reward, pool)]
            found["maj@k"] += row["score"][first_of(majority, pool)]
            found["pass@k"] += any(row["score"][:k])
        wanted = expected(path.parent)[path.name][f"k={k}"]
        assert found == {name: wanted[name] for name in found}


def test_the_best_reward_is_what_a_published_search_chose(data: Path) -> None:
    path = data / "best_of_n" / "vlprm_mathvista8_bon16_trace.json"
    for item, wanted in zip(json.loads(path.read_text()), expected(path.parent)[path.name]["items"], strict=True):
        (step,) = item["iteration_history"]
        pool = [Candidate("", (c["reward"],), None) for c in step["candidates_info"]]
        assert first_of(best_by_reward, pool) == wanted["argmax_reward_zero_based"] == step["chosen_step_index"]
