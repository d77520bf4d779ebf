"""What each stage needs from the one before it, on a small finished run whose policy is a careless teacher."""

import asyncio
import json
import math
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from data_synth import fuse, judge, label
from data_synth import report as synthesis
from data_synth.search.config import TreeSearchConfig
from data_synth.search.estimators import search
from data_synth.search.store import IMAGES, Searched, tree_record
from eval import report
from eval.runs.results import read_runs
from eval.view import run_problems
from tests.conftest import solved
from tests.stored import pool_record, write_run
from tests.teacher import TeacherEngine
from vlprm.data.dataset import read_rows, write_dataset
from vlprm.labels.fusion import RULES, Rule
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.reward_loading import load_reward_model
from vlprm.policy import Request
from vlprm.policy.rollout import rollouts
from vlprm.runs.folder import DONE, open_run
from vlprm.runs.journal import Records, finish, read_records
from vlprm.schema import Solution
from vlprm.scoring.tree import StepScore, score_steps
from vlprm.tasks import TASKS, load_task

PROBLEMS = [TASKS[name].problem("test", i) for i in range(3) for name in ("chart", "figure")]


def write_records(path: Path, records: Iterable[dict[str, Any]], inputs: tuple[Path, ...] = ()) -> None:
    open_run(path.parent, "", 0, inputs)
    written = Records(path)
    written.append(records)
    finish(written)


def scores_of(solution: Solution) -> list[StepScore]:
    probabilities = [(i + 1) / (len(solution.steps) + 1) for i in range(len(solution.steps))]
    return [StepScore(p, 1 - p, 0.0) for p in probabilities]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with everything that eval.report reads."""
    run, engine = tmp_path_factory.mktemp("run"), TeacherEngine()
    trees = [asyncio.run(search(problem, engine, TreeSearchConfig(searches=1), seed=1)) for problem in PROBLEMS]
    searched = [Searched(*pair) for pair in zip(PROBLEMS, trees, strict=True)]
    write_records(  # one by one: the run folder is opened before the first image is written
        run / "trees" / "trees.jsonl", (tree_record(i, s, run / "trees" / IMAGES) for i, s in enumerate(searched))
    )
    judge.main(judge.JudgeConfig(run / "trees", run / "judgements"))
    label.main(label.LabelConfig(run / "trees", run / "labels", (run / "judgements",)))
    pools = {p.id: asyncio.run(rollouts(engine, Request(p, (), 4, p.id, 0))) for p in PROBLEMS}
    (run / "prm").mkdir()
    CheckpointConfig(head="step").save(run / "prm")
    records = [
        pool_record(at, p, pools[p.id], [scores_of(s) for s in pools[p.id]], [0.5] * len(pools[p.id]))
        for at, p in enumerate(PROBLEMS)
    ]
    write_run(run / "eval", records, [run / "prm"])
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run folder that a test may damage."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_whole_run_is_reported_whoever_made_its_parts(run: Path) -> None:
    """The time of these trees, and the judge of these labels, were not recorded."""
    path = run / "labels" / "dataset.parquet"
    rows = read_rows(path)
    for row in rows:
        row["meta"] = json.dumps({k: v for k, v in json.loads(row["meta"]).items() if k != "reliability"})
    write_dataset(path, rows)
    report.main(report.ReportConfig(run))
    assert "How the labels were made" not in (run / "report.html").read_text()
    synthesis.main(synthesis.ReportConfig(run))
    report.main(report.ReportConfig(run))
    assert "How the labels were made" in (run / "report.html").read_text()
    results = json.loads((run / "results.json").read_text())
    assert (results["n_problems"], results["judge"]) == (len(PROBLEMS), "not named in the dataset")
    assert set(results["seconds"]) == {"judge", "label", "report"}
    assert (run / "report.html").exists()


def test_a_runs_candidates_and_trees_are_its_pages_problems(run: Path) -> None:
    shown = run_problems(run, TASKS)
    (one,) = read_runs([run / "eval"], pools=True, steps=True)
    pools = list(one.pools.values())
    by_benchmark = sorted(zip(pools, PROBLEMS, strict=True), key=lambda pair: pair[1].task)
    assert len(shown) == len(pools) + len(read_rows(run / "labels" / "dataset.parquet"))
    for at, (pool, problem) in enumerate(by_benchmark):
        view = shown.view(at)
        assert (view.id, view.answer, shown.images(at)) == (problem.id, problem.answer, problem.images)
        assert tuple(c.right for c in view.candidates) == pool.right
        assert [s.reward for c in view.candidates for s in c.steps] == [
            s.correct for scores in pool.scores for s in scores if s
        ]
        assert pool.truth is not None
        assert [s.correct for s in view.candidates[0].steps] == [v and v.correct for v in pool.truth[0]]
        best = max(range(4), key=lambda i: view.candidates[i].rewards["min"])
        assert view.candidates[view.chosen["prm_min"]].rewards["min"] == view.candidates[best].rewards["min"]
        assert set(view.chosen) == {"majority", "weighted_majority", "whole_solution", "prm_min"}
    assert shown.view(len(shown) - 1).tree


def test_a_run_is_served_until_it_is_interrupted(run: Path) -> None:
    report.main(report.ReportConfig(run))
    command = [sys.executable, "-m", "eval.view", "--run", str(run), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    (url,) = re.findall(r"http://\S+", next(line for line in process.stderr if "http://" in line))
    with urlopen(url, timeout=60) as page:
        assert "Does the reward model choose better answers?" in page.read().decode()
    with urlopen(f"{url}problem?at=0", timeout=60) as problem:
        assert json.load(problem)["id"] == PROBLEMS[0].id
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0


def test_a_folder_without_anything_to_show_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has neither records nor labels; pass a run folder"):
        run_problems(tmp_path, TASKS)


def test_a_mistyped_run_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"typo has no records\.jsonl and no eval/records\.jsonl; pass a run folder"):
        report.main(report.ReportConfig(tmp_path / "typo"))
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda pool: pool[1]["scores"][0].update(correct=math.nan), "{} has rewards that are not finite numbers"),
        (lambda pool: pool[2].update(whole=math.inf), "{} has rewards that are not finite numbers"),
        (lambda pool: pool[0]["scores"].pop(), "{} does not have one score for each step"),
    ],
)
def test_rewards_that_are_no_numbers_or_too_few_are_refused(
    run: Path,
    spoil: Callable[[list], None],
    message: str,  # type: ignore[type-arg]
) -> None:
    path = run / "eval" / "records.jsonl"
    scored = list(read_records(path))
    spoil(scored[3]["candidates"])
    path.write_text("".join(json.dumps(record) + "\n" for record in scored))
    finish(Records(path))
    with pytest.raises(ValueError, match=message.format(scored[3]["key"])):
        report.main(report.ReportConfig(run))
    assert not (run / "results.json").exists()


def test_a_reward_model_that_gives_no_numbers_is_refused(backbone: Path) -> None:
    checkpoint = load_reward_model(backbone, new_head=True)
    checkpoint.model.score.weight.data.fill_(math.nan)
    with pytest.raises(ValueError, match="scores are not finite numbers"):
        score_steps(checkpoint, [(PROBLEMS[0], solved(PROBLEMS[0]))])


@pytest.mark.parametrize(
    ("upstream", "stage"),
    [
        ("trees", lambda run, new: judge.main(judge.JudgeConfig(run / "trees", new))),
        ("trees", lambda run, new: label.main(label.LabelConfig(run / "trees", new, (run / "judgements",)))),
        ("judgements", lambda run, new: label.main(label.LabelConfig(run / "trees", new, (run / "judgements",)))),
        ("eval", lambda run, new: report.main(report.ReportConfig(run))),
    ],
)
def test_a_stage_that_has_not_ended_is_refused(run: Path, upstream: str, stage: Callable[[Path, Path], None]) -> None:
    (run / upstream / DONE).unlink()
    with pytest.raises(ValueError, match=rf"{upstream}/\w+\.jsonl is not finished .* to its end"):
        stage(run, run / "new")
    assert not (run / "new").exists()
    assert not (run / "results.json").exists()


def test_rewards_by_another_reward_model_are_refused(run: Path) -> None:
    CheckpointConfig(head="step", aggregation="mean").save(run / "prm")
    with pytest.raises(ValueError, match=r"eval was not made from .*prm as it is now"):
        report.main(report.ReportConfig(run))


def test_a_run_of_eval_run_is_reported_by_itself(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its page has the table and the curve, and nothing about labels."""
    report.main(report.ReportConfig(run))
    whole = json.loads((run / "results.json").read_text())
    config = (run / "eval" / "config.yaml").read_bytes()
    report.main(report.ReportConfig(run / "eval"))
    results = json.loads((run / "eval" / "results.json").read_text())
    assert {"selection", "differences", "best_of_n", "by_question_type", "steps"} <= set(results)
    assert all(results[name] == whole[name] for name in results if name != "seconds")
    page = (run / "eval" / "report.html").read_text()
    assert 'id="selection"' in page
    assert 'id="curve"' in page
    assert "Labels against the ground truth" not in page
    assert "best of n by min (exact)" in " ".join(capsys.readouterr().out.split())
    assert (run / "eval" / "config.yaml").read_bytes() == config


def test_items_of_a_task_that_is_not_given_are_refused_before_anything_is_written(run: Path) -> None:
    stages: list[Callable[[], None]] = [
        lambda: judge.main(judge.JudgeConfig(run / "trees", run / "new", tasks=("chart",))),
        lambda: report.main(report.ReportConfig(run, tasks=("chart",))),
    ]
    for stage in stages:
        with pytest.raises(
            ValueError, match="items belong to the task 'figure', but --tasks gives chart; add the task"
        ):
            stage()
    assert not (run / "new").exists()
    assert not (run / "results.json").exists()


@pytest.mark.parametrize("rule", RULES)
def test_another_rule_needs_the_evidence_alone(run: Path, tmp_path: Path, rule: Rule) -> None:
    """A dataset that is fused again equals the one that the label stage would have made by that rule."""
    label.main(label.LabelConfig(run / "trees", tmp_path / "labels", (run / "judgements",), rule))
    again = tmp_path / "again.parquet"
    fuse.main(fuse.FuseConfig(run / "labels" / "dataset.parquet", again, rule))
    assert read_rows(again) == read_rows(tmp_path / "labels" / "dataset.parquet")
    with pytest.raises(ValueError, match=r"again\.parquet already exists"):
        fuse.main(fuse.FuseConfig(again, again, rule))


def test_a_run_folder_does_not_decide_what_code_is_imported(run: Path) -> None:
    """A family from outside the package is shown only if the user names it."""
    outside = load_task("docs.examples.dominoes")
    problem = outside.problem("test", 0)
    path = run / "eval" / "records.jsonl"
    stored = next(read_records(path))
    records = [{**stored, "key": f"{problem.id}/pool", "benchmark": outside.name, "problem": problem.id}]
    write_run(run / "other", records)
    config = (run / "other" / "config.yaml").read_text().replace("name: dominoes", "name: docs.examples.dominoes")
    (run / "other" / "config.yaml").write_text(config)
    with pytest.raises(ValueError, match="items belong to the task 'dominoes', but --tasks gives"):
        run_problems(run / "other", TASKS)
    assert run_problems(run / "other", {outside.name: outside}).images(0) == problem.images
