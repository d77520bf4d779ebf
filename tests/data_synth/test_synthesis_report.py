"""The synthesis report: its counts are those of the run, whatever is absent or failed."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
import yaml

from data_synth import judge, label, report
from data_synth.reports.config import ReportConfig
from data_synth.search.config import TreesConfig, TreeSearchConfig
from data_synth.search.estimators import search
from data_synth.search.store import IMAGES, TREES, Failed, Searched, TreeRun, failure_record, tree_files, tree_record
from tests.teacher import TeacherEngine
from vlprm.data.dataset import read_rows
from vlprm.labels.fusion import RULES
from vlprm.runs.config import dump
from vlprm.runs.cost import Meter, Usage
from vlprm.runs.folder import CONFIG, open_run
from vlprm.runs.journal import Records, finish, read_records
from vlprm.serving.config import ModelConfig, ServerConfig
from vlprm.tasks import TASKS

PROBLEMS = [TASKS[name].problem("test", i) for i in range(12) for name in ("chart", "fine_print", "count_grid")]
SEARCH = TreeSearchConfig(searches=2, rollouts=8, decided=0.9)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    open_run(run / "trees", "", 0)
    records = Records(run / "trees" / TREES)
    for at, problem in enumerate(PROBLEMS):
        tree = asyncio.run(search(problem, TeacherEngine(0.3), SEARCH, seed=1))
        records.append([tree_record(at, Searched(problem, tree), run / "trees" / IMAGES)])
    records.append([failure_record(99, Failed("lost", "image_missing", "there is no image x"))])
    finish(records)
    judge.main(judge.JudgeConfig(run / "trees", run / "judgements"))
    label.main(label.LabelConfig(run / "trees", run / "labels", (run / "judgements",)))
    return run


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def results_of(run: Path, **changes: float) -> dict:  # type: ignore[type-arg]
    report.main(ReportConfig(run, **changes))  # type: ignore[arg-type]
    return json.loads((run / "synthesis.json").read_text())  # type: ignore[no-any-return]


def test_the_counts_are_those_of_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = results_of(run)
    trees, rows = [s.tree for s in TreeRun(run / "trees")], read_rows(run / "labels" / "dataset.parquet")
    sums = results["trees"]
    assert (sums["trees"], sums["mixed"]) == (len(PROBLEMS), len(rows))
    assert sums["rollouts"] == sum(tree.rollouts for tree in trees)
    assert sums["rollouts_saved"] == pytest.approx(1 - sums["rollouts"] / sum(tree.planned for tree in trees))
    assert sums["rollouts_saved"] > 0
    assert sums["failures"] == {"image_missing": 1}
    steps = results["steps"]
    targets = [target for row in rows for target in row["labels"]]
    assert steps["labelled"] == sum(target is not None for target in targets)
    for name in ("by_source", "by_kind", "by_position"):
        assert sum(group["steps"] for group in steps[name].values()) == len(targets)
        assert sum(group["labelled"] for group in steps[name].values()) == steps["labelled"]
    assert steps["by_position"]["1"]["steps"] == sum(row["parents"].count(-1) for row in rows)
    assert set(steps["by_source"]) == {
        f"{p.task}/{p.meta['question_type']}" for p in PROBLEMS if p.id in {r["id"] for r in rows}
    }
    assert (
        sum(steps["error_kinds"].values())
        == steps["targets"]["wrong"]
        == sum(t is not None and t < 0.5 for t in targets)
    )
    labels = [e["label"] for row in rows for e in json.loads(row["evidence"])]
    both = [x for x in labels if x["votes"] and x["mc_valid"] + x["passed_valid"] >= 3]
    agreed = sum((x["mc_correct"] + x["passed_correct"] > 0) == x["votes"]["judgements"]["correct"] for x in both)
    assert steps["agreement"]["share"] == pytest.approx(agreed / len(both))
    assert results["cost"]["tokens"] == pytest.approx(sum(tree.tokens for tree in trees) / steps["labelled"])
    shown = " ".join(capsys.readouterr().out.split())  # a title breaks where its table ends: seconds have any length
    assert "image missing" in shown
    assert "Cost per labelled step" in shown
    page = (run / "synthesis.html").read_text()
    assert "image missing" in page
    assert "://" not in page.replace("http://www.w3.org", "")


def test_what_the_calls_cost_is_shown_by_stage(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for stage, folder, used in (
        ("trees", "trees", Usage(10, 1, 8_000, 700, cached=3_000, cached_of=4_000)),
        ("judge", "judgements", Usage(5, 0, 2_000, 300)),
        ("trees", "trees", Usage(20, 0, 1_000, 100, cached=1_000, cached_of=1_000)),  # the command ran twice
    ):
        with Meter(run / folder, stage, devices=2) as meter:
            meter.used(used)
    stages = results_of(run)["stages"]
    assert set(stages) == {"trees", "judge"}
    trees = stages["trees"]
    assert (trees["requests"], trees["failures"], trees["tokens_read"], trees["tokens_sampled"]) == (30, 1, 9_000, 800)
    assert (trees["cache_hits"], stages["judge"]["cache_hits"]) == (0.8, None)
    shown = capsys.readouterr().out
    assert "Cost by stage" in shown
    assert "9,000" in shown
    assert "9,000" in (run / "synthesis.html").read_text()


def test_every_rule_is_measured_against_the_truth(run: Path) -> None:
    truth = results_of(run)["truth"]
    assert set(truth["rules"]) == set(RULES)
    assert truth["steps"] > 30
    for rule, row in truth["rules"].items():
        assert sum(n for n, _, _ in row["bins"]) == round(row["labelled"] * truth["steps"])
        assert 0 <= row["ece"] <= 1
        if row["precision"] + row["recall"]:
            assert row["f1"] == pytest.approx(2 * row["precision"] * row["recall"] / (row["precision"] + row["recall"]))
        if rule == "judge":  # its targets are 0 and 1: both errors are the share of mistakes
            assert row["ece"] == pytest.approx(row["brier"]) or row["ece"] < row["brier"]


def test_a_perfect_judge_is_found_perfect(run: Path) -> None:
    shutil.rmtree(run / "judgements")
    shutil.rmtree(run / "labels")
    judge.main(judge.JudgeConfig(run / "trees", run / "judgements", error_rate=0.0))
    label.main(label.LabelConfig(run / "trees", run / "labels", (run / "judgements",)))
    row = results_of(run)["truth"]["rules"]["judge"]
    assert (row["precision"], row["recall"], row["f1"], row["brier"]) == (1.0, 1.0, 1.0, 0.0)


def test_failed_judgements_and_a_price_are_shown(run: Path) -> None:
    path = run / "judgements" / "judgements.jsonl"
    records = list(read_records(path))
    for record in records:
        record |= {"failures": {"timeout": 2}, "requests": 3, "tokens": 1000}
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    finish(Records(path))
    shutil.rmtree(run / "labels")
    label.main(label.LabelConfig(run / "trees", run / "labels", (run / "judgements",)))
    results = results_of(run, price_per_million_tokens=10.0)
    assert results["sources"]["judgements"]["failures"] == {"timeout": 2 * len(PROBLEMS)}
    tokens = results["trees"]["tokens"] + 1000 * len(PROBLEMS)
    assert results["cost"]["price"] == pytest.approx(tokens * 10 / 1e6 / results["steps"]["labelled"])


def test_without_a_judge_the_rest_is_reported(run: Path) -> None:
    shutil.rmtree(run / "judgements")
    shutil.rmtree(run / "labels")
    label.main(label.LabelConfig(run / "trees", run / "labels", rule="mc"))
    results = results_of(run)
    assert results["sources"] == {}
    assert results["steps"]["agreement"] == {"share": None}
    rules = results["truth"]["rules"]
    assert 0 < rules["mc"]["labelled"] < 1, "steps that rollouts only passed through have no value"
    assert rules["judge"]["labelled"] == 0
    assert results["steps"]["labelled"] > 0


def test_labels_of_other_trees_are_refused(run: Path) -> None:
    path = run / "trees" / TREES
    path.write_text(path.read_text().replace('"said": "there', '"said": "There'))
    finish(Records(path))
    with pytest.raises(ValueError, match=r"labels was not made from .*trees\.jsonl as it is now"):
        report.main(ReportConfig(run))


@pytest.mark.parametrize(
    ("part", "message"), [("trees", "make it with `python -m data_synth.trees`"), ("labels", "no dataset")]
)
def test_a_missing_part_is_named(run: Path, part: str, message: str) -> None:
    shutil.rmtree(run / part)
    with pytest.raises(ValueError, match=message):
        report.main(ReportConfig(run))
    assert not (run / "synthesis.json").exists()


def test_the_data_card_has_counts_balance_judge_cost_and_licence(run: Path) -> None:
    results = results_of(run, license="cc-by-4.0")  # type: ignore[arg-type]
    card = (run / "labels" / "README.md").read_text()
    assert str(run) not in card
    assert yaml.safe_load(card.split("---")[1])["license"] == "cc-by-4.0"
    targets = results["steps"]["targets"]
    assert f"- correct: {targets['correct']}\n- wrong: {targets['wrong']}\n" in card
    for source, counts in results["steps"]["by_source"].items():
        assert f"| {source} | {counts['steps']} | {counts['labelled']} | {counts['wrong']} |" in card
    assert f"- rollouts: {results['cost']['rollouts']:.4g}" in card
    assert "sources of verdicts: judgements (oracle with error rate" in card.split("## Labels")[0]


@pytest.mark.parametrize("shard", [None, "shard-0-of-1"])
@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (ModelConfig("Qwen/Qwen2.5-VL-7B-Instruct"), "Qwen/Qwen2.5-VL-7B-Instruct"),
        (ModelConfig("/home/me/policies/seven", server=ServerConfig(("http://10.0.0.7:8000/v1",), "seven")), "seven"),
    ],
)
def test_the_data_card_names_the_policy_alone(run: Path, shard: str | None, policy: ModelConfig, said: str) -> None:
    trees = run / "trees"
    if shard is not None:
        (trees / shard).mkdir()
        for path in trees.iterdir():
            if path.is_file():
                path.rename(trees / shard / path.name)
    tree_files(trees)[0].with_name(CONFIG).write_text(dump(TreesConfig(trees, policy)))
    results_of(run)
    assert f"- policy: {said}; sources" in (run / "labels" / "README.md").read_text()


def test_the_page_of_a_large_dataset_shows_a_sample(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "SHOWN", 2)
    results = results_of(run)
    page = (run / "synthesis.html").read_text()
    rows = read_rows(run / "labels" / "dataset.parquet")
    assert f"2 of {results['rows']} trees" in page
    shown = [row["id"] for row in rows if row["id"] in page]
    assert shown == [rows[0]["id"], rows[len(rows) // 2]["id"]]
