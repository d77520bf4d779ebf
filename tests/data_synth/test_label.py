"""Which problems get labels: those with right and wrong rollouts, and the others if asked for."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from data_synth import judge, label, report
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
from vlprm.schema import StepTree, from_json
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
    asked = LabelConfig(run / "trees", run / "all", run / "judgements", keep_unmixed=True)
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
    label.main(LabelConfig(run / "trees", run / "labels", run / "second"))
    moved = Path(shutil.copytree(run, run.with_name("moved")))
    report.main(ReportConfig(moved))
    assert json.loads((moved / "synthesis.json").read_text())["judge"]["name"] == "oracle with error rate 0.4"
    for folder in (run, moved):
        (folder / "second" / "judgements.jsonl").unlink()
    with pytest.raises(ValueError, match=r"labels was made from .*second/judgements\.jsonl, which is gone or h"):
        report.main(ReportConfig(moved))
