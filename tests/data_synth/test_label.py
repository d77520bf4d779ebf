"""Which problems get labels: those with right and wrong rollouts, and the others if asked for."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from data_synth import judge, label, report
from data_synth.judges.checks import CHECKS
from data_synth.judges.config import JudgeConfig
from data_synth.labels.config import LabelConfig
from data_synth.reports.config import ReportConfig
from data_synth.search.config import TreeSearchConfig
from data_synth.search.estimators import search
from data_synth.search.store import IMAGES, TREES, Searched, TreeRun, tree_record
from data_synth.search.tree import is_mixed
from tests.teacher import TeacherEngine
from vlprm.data.dataset import read_rows
from vlprm.runs.folder import open_run
from vlprm.runs.journal import Records, finish, read_records
from vlprm.schema import StepTree, Verdict, from_json
from vlprm.tasks import TASKS

PROBLEMS = [TASKS["chart"].problem("test", i) for i in range(12)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with trees and verdicts."""
    open_run(tmp_path / "trees", "", 0)
    records = Records(tmp_path / "trees" / TREES)
    for at, problem in enumerate(PROBLEMS):
        tree = asyncio.run(search(problem, TeacherEngine(0.1), TreeSearchConfig(searches=1), seed=1))
        records.append([tree_record(at, Searched(problem, tree), tmp_path / "trees" / IMAGES)])
    finish(records)
    judge.main(JudgeConfig(tmp_path / "trees", tmp_path / "judgements"))
    return tmp_path


def test_problems_that_are_always_or_never_solved_are_counted_or_kept(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    trees = [searched.tree for searched in TreeRun(run / "trees")]
    unmixed = {tree.problem_id for tree in trees if not is_mixed(tree)}
    assert 0 < len(unmixed) < len(trees)
    asked = LabelConfig(run / "trees", run / "all", (run / "judgements",), keep_unmixed=True)
    label.main(asked)
    assert "left out" not in caplog.text
    label.main(dataclasses.replace(asked, run=run / "mixed", keep_unmixed=False))
    assert f"{len(unmixed)} trees left out: {len(unmixed)} always solved; keep_unmixed: true" in caplog.text
    rows, mixed = (read_rows(run / name / "dataset.parquet") for name in ("all", "mixed"))
    assert [row for row in rows if row["id"] not in unmixed] == mixed
    assert [row["id"] for row in rows] == [tree.problem_id for tree in trees]
    assert any(target is not None for row in rows if row["id"] in unmixed for target in row["labels"])


def test_a_run_without_a_mixed_problem_says_so(run: Path) -> None:
    path = run / "trees" / TREES
    kept = [record for record in read_records(path) if not is_mixed(from_json(StepTree, record["tree"]))]
    path.write_text("".join(json.dumps(record) + "\n" for record in kept))
    finish(Records(path))
    asked = LabelConfig(run / "trees", run / "labels", rule="mc")
    said = rf"none of {len(kept)} trees has right and wrong rollouts \({len(kept)} always solved\).*; use more problems"
    with pytest.raises(ValueError, match=said):
        label.main(asked)
    label.main(dataclasses.replace(asked, keep_unmixed=True))
    assert len(read_rows(run / "labels" / "dataset.parquet")) == len(kept)


def test_a_report_is_of_the_judgements_that_the_labels_were_made_from(run: Path) -> None:
    """The folder has another judge's verdicts, too."""
    judge.main(JudgeConfig(run / "trees", run / "second", error_rate=0.4))
    label.main(LabelConfig(run / "trees", run / "labels", (run / "second",)))
    moved = Path(shutil.copytree(run, run.with_name("moved")))
    report.main(ReportConfig(moved))
    assert (
        json.loads((moved / "synthesis.json").read_text())["sources"]["second"]["kind"] == "oracle with error rate 0.4"
    )
    for folder in (run, moved):
        (folder / "second" / "judgements.jsonl").unlink()
    with pytest.raises(ValueError, match=r"labels was made from .*second/judgements\.jsonl, which is gone or h"):
        report.main(ReportConfig(moved))


def test_labels_from_two_sources_keep_both_votes_and_report_each(run: Path) -> None:
    judge.main(JudgeConfig(run / "trees", run / "second", error_rate=0.4, seed=5))
    label.main(LabelConfig(run / "trees", run / "labels", (run / "judgements", run / "second")))
    rows = read_rows(run / "labels" / "dataset.parquet")
    votes = [evidence["label"]["votes"] for row in rows for evidence in json.loads(row["evidence"])]
    assert {tuple(vote) for vote in votes if vote} == {("judgements", "second")}
    assert any(vote["judgements"]["correct"] != vote["second"]["correct"] for vote in votes if vote)
    report.main(ReportConfig(run))
    sources = json.loads((run / "synthesis.json").read_text())["sources"]
    assert list(sources) == ["judgements", "second"]
    assert all(source["coverage"] == pytest.approx(sum(map(bool, votes)) / len(votes)) for source in sources.values())
    assert sources["second"]["dependence"] == {"judgements": "not known, 0.50 assumed"}, "three problems tell nothing"
    assert sources["second"]["rates"]["sensitivity/action"] == "not known"
    assert "Sources of verdicts" in (run / "synthesis.html").read_text()


def rewritten(run: Path, name: str, **changes: object) -> Path:
    """The judgements of a folder with changed records."""
    path = run / name / "judgements.jsonl"
    records = [{**record, **changes} for record in read_records(path)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    finish(Records(path))
    return run / name


def test_sources_that_cannot_be_used_are_named(run: Path) -> None:
    def refused(said: str, *folders: Path, gold: str | None = None) -> None:
        path = None
        if gold is not None:
            path = run / "gold.jsonl"
            path.write_text(gold)
        with pytest.raises(ValueError, match=said):
            label.main(LabelConfig(run / "trees", run / "new", folders, gold=path))
        assert not (run / "new").exists()

    folder, problem = run / "judgements", PROBLEMS[0].id
    refused("two sources are named 'judgements' after their folders; rename one", folder, run / "x" / "judgements")
    for line, said in [
        ({"key": "chart@1/test/99", "step": 0, "verdict": "correct"}, r"line 1: the trees have no problem 'chart@1/te"),
        ({"key": problem, "step": 0, "verdict": "right"}, r"line 1 is not a label of a step; write key, step"),
        ({"key": problem, "step": True, "verdict": "correct"}, r"line 1 is not a label of a step"),
    ]:
        refused(said, folder, gold=json.dumps(line) + "\n")
    refused(
        r"judgements.jsonl: a declared specificity of 1.0 is not between 0 and 1; give a rate such as",
        rewritten(run, "judgements", rates={"specificity": 1.0, "sensitivity": 0.9}),
    )
    silent = rewritten(run, "judgements", rates=None, verdicts=[])
    refused("has no verdict on any step; leave this source out", silent)


def test_judgements_of_other_trees_are_refused(run: Path) -> None:
    """A judge's folder belongs to the trees that it read, whole and unchanged."""
    other = Path(shutil.copytree(run / "trees", run / "other"))
    records = list(read_records(other / TREES))
    (other / TREES).write_text("".join(json.dumps(record) + "\n" for record in records[1:]))
    finish(Records(other / TREES))
    judge.main(JudgeConfig(other, run / "of_other"))
    asked = LabelConfig(run / "trees", run / "labels", (run / "judgements", run / "of_other"))
    with pytest.raises(ValueError, match=r"of_other was not made from .*/trees/trees\.jsonl as it is now"):
        label.main(asked)
    few = rewritten(run, "judgements", verdicts=[dataclasses.asdict(Verdict(True))])
    with pytest.raises(ValueError, match=r"has 1 verdicts on the \d+ steps of chart@1/test/\d+; judge the trees again"):
        label.main(dataclasses.replace(asked, judgements=(few,)))
    assert not (run / "labels" / "dataset.parquet").exists()


def test_a_gold_file_that_is_not_there_is_named(run: Path) -> None:
    asked = LabelConfig(run / "trees", run / "labels", (run / "judgements",), gold=run / "nowhere.jsonl")
    with pytest.raises(ValueError, match=r"there is no gold file .*nowhere\.jsonl; give one, or leave out gold"):
        label.main(asked)
    assert not (run / "labels").exists()


def test_gold_for_a_step_that_does_not_exist_is_refused(run: Path) -> None:
    gold = run / "gold.jsonl"
    gold.write_text(json.dumps({"key": PROBLEMS[0].id, "step": 999, "verdict": "perception"}) + "\n")
    with pytest.raises(ValueError, match=r"label of step 999 of chart@1/test/000000, which has \d+ steps, from 0"):
        label.main(LabelConfig(run / "trees", run / "labels", (run / "judgements",), gold=gold))


def test_gold_labels_are_counted_among_the_anchors(run: Path) -> None:
    trees = [searched.tree for searched in TreeRun(run / "trees")]
    gold = run / "gold.jsonl"
    lines = [{"key": tree.problem_id, "step": 0, "verdict": "correct"} for tree in trees]
    gold.write_text("".join(json.dumps(line) + "\n" for line in lines))
    anchors = []
    for name, path in (("bare", None), ("helped", gold)):
        label.main(LabelConfig(run / "trees", run / name, (run / "judgements",), gold=path))
        meta = json.loads(read_rows(run / name / "dataset.parquet")[0]["meta"])
        anchors.append(meta["reliability"]["sources"]["judgements"]["anchors"]["specificity"])
    assert anchors[1] > anchors[0]


def test_a_judge_may_declare_its_rates(run: Path) -> None:
    config = JudgeConfig(run / "trees", run / "second", specificity=0.9, sensitivity=0.8)
    judge.main(config)
    label.main(LabelConfig(run / "trees", run / "labels", (run / "second",)))
    meta = json.loads(read_rows(run / "labels" / "dataset.parquet")[0]["meta"])
    source = meta["reliability"]["sources"]["second"]
    assert (source["declared"], source["says"][0][0], source["intervals"]) == (True, 0.9, {})
    with pytest.raises(ValueError, match=r"a declared sensitivity of 0.0 is not between 0 and 1; give a rate such as"):
        judge.main(dataclasses.replace(config, run=run / "third", sensitivity=0.0))
    assert not (run / "third").exists()


def test_a_check_is_a_source_beside_a_judge(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge.main(JudgeConfig(run / "trees", run / "check", "check"))
    label.main(LabelConfig(run / "trees", run / "labels", (run / "judgements", run / "check")))
    rows = read_rows(run / "labels" / "dataset.parquet")
    sources = json.loads(rows[0]["meta"])["reliability"]["sources"]
    assert sources["check"]["kind"] == "check of deduction"
    assert (sources["check"]["declared"], sources["check"]["local"]) == (True, True)
    votes = [e["label"]["votes"] for row in rows for e in json.loads(row["evidence"])]
    assert any("check" in vote for vote in votes)
    assert any("check" not in vote for vote in votes), "readings are not checked"
    monkeypatch.setitem(CHECKS, "arithmetic", lambda problem, steps, tasks: [None] * len(steps))
    with pytest.raises(ValueError, match="the check of arithmetic has nothing to say about any of these steps"):
        judge.main(JudgeConfig(run / "trees", run / "sums", "check", tasks=(), check="arithmetic"))
