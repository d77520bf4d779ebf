"""What a stage asks of the one before it, on a small finished run whose policy is a careless teacher."""

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from data_synth import label
from data_synth.omega import OmegaConfig, grow
from eval import report, rewards
from tests.teacher import TeacherEngine
from vlprm.engines import Request
from vlprm.profile import Profile
from vlprm.records import DONE, Records, finish, open_run
from vlprm.rollout import rollouts
from vlprm.schema import Solution, to_json
from vlprm.scoring import StepScore
from vlprm.tasks import TASKS

PROBLEMS = [TASKS[name].problem("test", i) for i in range(3) for name in ("chart", "figure")]


def write_records(path: Path, records: list[dict], inputs: tuple[Path, ...] = ()) -> None:  # type: ignore[type-arg]
    open_run(path.parent, "", 0, inputs)
    written = Records(path)
    written.append(records)
    finish(written)


def scores_of(solution: Solution) -> dict:  # type: ignore[type-arg]
    probabilities = [(i + 1) / (len(solution.steps) + 1) for i in range(len(solution.steps))]
    return {"steps": [asdict(StepScore(p, 1 - p, 0.0)) for p in probabilities], "whole": 0.5}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with all that eval.report reads."""
    run, engine = tmp_path_factory.mktemp("run"), TeacherEngine()
    trees = [asyncio.run(grow(problem, engine, OmegaConfig(searches=1), seed=1)) for problem in PROBLEMS]
    write_records(run / "trees" / "trees.jsonl", [{"key": t.problem_id, "tree": to_json(t)} for t in trees])
    label.main(label.LabelConfig(run / "trees", run / "labels"))
    pools = {p.id: asyncio.run(rollouts(engine, Request(p, (), 4, p.id, 0))) for p in PROBLEMS}
    source = run / "candidates" / "candidates.jsonl"
    write_records(source, [{"key": i, "solutions": [to_json(s) for s in pool]} for i, pool in pools.items()])
    (run / "prm").mkdir()
    Profile(head="step").save(run / "prm")
    scored = [{"key": i, "candidates": [scores_of(s) for s in pool]} for i, pool in pools.items()]
    write_records(run / "rewards" / "rewards.jsonl", scored, (source, run / "prm"))
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.mark.parametrize(
    ("upstream", "stage"),
    [
        ("trees", lambda run, new: label.main(label.LabelConfig(run / "trees", new))),
        ("candidates", lambda run, new: rewards.main(rewards.RewardsConfig(run / "candidates", run / "prm", new))),
        ("candidates", lambda run, new: report.main(report.ReportConfig(run))),
        ("rewards", lambda run, new: report.main(report.ReportConfig(run))),
    ],
)
def test_a_stage_that_has_not_ended_is_refused(run: Path, upstream: str, stage: Callable[[Path, Path], None]) -> None:
    (run / upstream / DONE).unlink()
    with pytest.raises(ValueError, match=rf"{upstream}\.jsonl is not finished .* to its end"):
        stage(run, run / "new")
    assert not (run / "new").exists()
    assert not (run / "results.json").exists()


def test_rewards_of_other_candidates_or_by_another_reward_model_are_refused(run: Path) -> None:
    source = run / "candidates" / "candidates.jsonl"
    Profile(head="step", aggregation="mean").save(run / "prm")
    with pytest.raises(ValueError, match=r"rewards was not made from .*prm as it is now"):
        report.main(report.ReportConfig(run))
    source.write_text(source.read_text().replace(" = ", " == "))
    finish(Records(source))
    with pytest.raises(ValueError, match=r"rewards was not made from .*candidates\.jsonl as it is now"):
        report.main(report.ReportConfig(run))


def test_items_of_a_task_that_is_not_given_are_refused_before_anything_is_written(run: Path) -> None:
    stages: list[Callable[[], None]] = [
        lambda: label.main(label.LabelConfig(run / "trees", run / "new", tasks=("chart",))),
        lambda: rewards.main(rewards.RewardsConfig(run / "candidates", run / "prm", run / "new", tasks=("chart",))),
        lambda: report.main(report.ReportConfig(run, tasks=("chart",))),
    ]
    for stage in stages:
        with pytest.raises(ValueError, match="items of a task 'figure', and --tasks gives chart; add the task"):
            stage()
    assert not (run / "new").exists()
    assert not (run / "results.json").exists()
