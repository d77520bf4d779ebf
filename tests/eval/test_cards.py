"""Results as the Hub's metadata: huggingface_hub reads back the measured values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard, parse_eval_result_entries
from huggingface_hub.repocard_data import model_index_to_eval_results

from eval.table import main
from eval.tables.config import TableConfig
from tests.docs.pages import ROOT
from tests.eval.test_tables import run_of, text_of
from vlprm.runs.journal import Records, finish
from vlprm.schema import SCHEMA_VERSION

POOLS: list[list[bool | None]] = [[False, True], [True, False], [None, True], [False, False]]
WHOLE = {"name": "mathvista", "subset": "all", "problems": 0}


def mathvista(folder: Path, **changes: Any) -> Path:
    return run_of(folder, POOLS, "mathvista", **{"benchmarks": [WHOLE], **changes})


def read_back(text: str) -> tuple[str, list[EvalResult]]:
    card = ModelCard(f"---\n{text}---\n# A reward model\n")
    name, results = model_index_to_eval_results(yaml.safe_load(text)["model-index"])
    assert (card.data.model_name, card.data.eval_results) == (name, results)
    return name, results


def test_a_model_card_says_what_was_measured_and_by_which_method(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = text_of(mathvista(tmp_path / "r"), capsys, format="model-index", published=ROOT / "eval/published.yaml")
    name, results = read_back(text)
    assert name == "p + r"
    values = {result.metric_name: result.metric_value for result in results}
    assert values == {
        "accuracy, policy alone, N = 1": 50.0,
        "accuracy, majority vote, N = 2": 50.0,
        "accuracy, vote weighted by the reward model: min, N = 2": 50.0,
        "accuracy, best of N by step rewards: min, N = 2": 50.0,
    }
    (best,) = (result for result in results if "best of N" in str(result.metric_name))
    assert (best.dataset_type, best.dataset_name, best.dataset_split) == ("AI4Math/MathVista", "mathvista", "testmini")
    assert (best.task_type, best.metric_type) == ("image-text-to-text", "accuracy")
    assert best.metric_args == {"problems": 4, "interval_95": [0.0, 100.0]}


def test_a_leaderboard_is_given_whole_benchmarks_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = text_of(mathvista(tmp_path / "r"), capsys, format="eval-results")
    entries = parse_eval_result_entries(yaml.safe_load(text))
    assert {(e.dataset_id, e.task_id, e.value) for e in entries} == {("AI4Math/MathVista", "default", 50.0)}
    assert entries[-1].notes == "p + r: best of N by step rewards: min, N = 2; 95% interval 0.0 to 100.0, 4 problems"
    assert len(entries) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"benchmarks": [{**WHOLE, "problems": 4}]},
        {"benchmarks": [{**WHOLE, "subset": "images"}]},
        {"shard": "0/2"},
    ],
)
def test_a_part_is_never_written_as_the_whole(
    tmp_path: Path, changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    refused(mathvista(tmp_path / "r", **changes))
    _, results = read_back(text_of(tmp_path / "r", capsys, format="model-index"))
    assert {result.dataset_name for result in results} == {"mathvista (4 problems)"}


def test_a_problem_that_failed_is_missing_from_the_whole(tmp_path: Path) -> None:
    folder = mathvista(tmp_path / "r")
    (folder / "done.json").unlink()
    records = Records(folder / "records.jsonl")
    named = {"key": "mathvista/9/pool", "at": 9, "benchmark": "mathvista", "problem": "9", "method": "pool"}
    records.append([{**named, "schema": SCHEMA_VERSION, "failure": "image_missing"}])
    finish(records)
    refused(folder)


def refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="no row covers all items of a benchmark on the Hub"):
        main(TableConfig((folder,), format="eval-results"))


def test_a_drawn_family_is_no_dataset_of_the_hub(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_of(tmp_path / "r", POOLS)
    _, results = read_back(text_of(folder, capsys, format="model-index"))
    assert {(r.dataset_type, r.dataset_name, r.dataset_split) for r in results} == {("b", "b (4 problems)", None)}
    refused(folder)


def test_a_card_is_of_one_model(tmp_path: Path) -> None:
    runs = (run_of(tmp_path / "a", POOLS), run_of(tmp_path / "b", POOLS, policy={"checkpoint": "q"}))
    with pytest.raises(
        ValueError, match="a model card describes one model, but these rows have 2; pass the runs of one model"
    ):
        main(TableConfig(runs, format="model-index"))
