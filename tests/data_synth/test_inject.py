"""Injected steps: wrong by construction, beside the right step, in a tree that is otherwise the same."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_synth import inject, judge, label, report
from data_synth.injected.config import InjectConfig
from data_synth.injected.model import rewrites_of_tree
from data_synth.injected.tree import INJECTED_FILE
from data_synth.judges.config import JudgeConfig
from data_synth.labels.config import LabelConfig
from data_synth.reports.config import ReportConfig
from data_synth.search.config import TreeSearchConfig
from data_synth.search.estimators import search
from data_synth.search.store import IMAGES, TREES, Searched, TreeRun, tree_record
from tests.teacher import TeacherEngine
from vlprm.data.dataset import read_rows, row_paths
from vlprm.labels import judge_reliability
from vlprm.labels.fusion import INJECTED, RULES
from vlprm.policy import Continuation, Request
from vlprm.runs.folder import open_run
from vlprm.runs.journal import Records, finish
from vlprm.schema import Problem, StepTree
from vlprm.tasks import TASKS
from vlprm.zoom.policy import ZoomPolicy

PROBLEMS = [TASKS[name].problem("test", i) for i in range(6) for name in ("chart", "count_grid")]


def tree_of(problem: Problem) -> StepTree:
    config = TreeSearchConfig(estimator="flat", solutions=3, rollouts=4)
    return asyncio.run(search(problem, TeacherEngine(0.2), config, seed=1))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    open_run(run / "plain", "", 0)
    records = Records(run / "plain" / TREES)
    for at, problem in enumerate(PROBLEMS):
        records.append([tree_record(at, Searched(problem, tree_of(problem)), run / "plain" / IMAGES)])
    finish(records)
    inject.main(InjectConfig(run / "plain", run / "trees", share=0.5))
    judge.main(JudgeConfig(run / "trees", run / "judgements"))
    return run


def injected_of(tree: StepTree) -> list[int]:
    return [n for n, node in enumerate(tree.nodes) if INJECTED in node.label.votes]


def test_an_injected_step_is_false_by_one_claim_and_all_else_stays(made: Path) -> None:
    kinds: Counter[str] = Counter()
    said: Counter[str] = Counter()
    for plain, searched in zip(TreeRun(made / "plain"), TreeRun(made / "trees"), strict=True):
        tree, problem = searched.tree, searched.problem
        assert tree.nodes[: len(plain.tree.nodes)] == plain.tree.nodes
        assert injected_of(tree) == list(range(len(plain.tree.nodes), len(tree.nodes)))
        assert len(injected_of(tree)) <= 2
        for node in injected_of(tree):
            *before, wrong = (tree.nodes[n].step for n in tree.path(node))
            vote = tree.nodes[node].label.votes[INJECTED]
            truth = TASKS[problem.task].verdicts(problem, [*before, wrong])
            assert all(verdict and verdict.correct for verdict in truth[:-1])
            assert truth[-1] is not None
            assert (truth[-1].correct, truth[-1].error_kind) == (False, vote.error_kind)
            siblings = [n.step.text.strip() for n in plain.tree.nodes if n.parent == tree.nodes[node].parent]
            assert vote.correction in siblings
            assert wrong.text not in siblings
            pairs = list(zip(wrong.text.split(), vote.correction.split(), strict=True))
            assert 1 <= sum(a != b for a, b in pairs) <= 2  # a colour with a shape is one claim of two words
            assert (node, None) in tree.leaves
            kinds[str(vote.error_kind)] += 1
            said[vote.reason] += 1
    assert set(kinds) == {"perception", "reasoning"}
    assert set(said) == {"injected; the answer stays", "injected; the answer is lost"}, "harmless ones are kept"


@pytest.mark.parametrize("rule", RULES)
def test_injected_steps_are_labelled_by_their_source_and_by_no_counts(
    made: Path, tmp_path: Path, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_reliability, "RESAMPLES", 2)  # intervals take most of the time
    label.main(LabelConfig(made / "trees", tmp_path / "labels", (made / "judgements",), rule))  # type: ignore[arg-type]
    targets, corrected, pairs = [], 0, 0
    for row in read_rows(tmp_path / "labels" / "dataset.parquet"):
        votes = [evidence["label"]["votes"] for evidence in json.loads(row["evidence"])]
        for path in row_paths(row):
            if INJECTED in path.labels[-1].votes:
                targets.append(path.labels[-1].target)
                corrected += path.corrected[-1] is not None
                assert path.place is not None, "training reads it"
                assert list(votes[path.nodes[-1]]) == [INJECTED, "judgements"]
                right = [n for n, p in enumerate(row["parents"]) if p == row["parents"][path.nodes[-1]]]
                pairs += any((row["labels"][n] or 0.0) > 0.5 for n in right)
    assert targets
    if rule in ("judge", "consensus", "hybrid", "bayes"):
        assert all(target is not None and target < 0.1 for target in targets)
        assert corrected == len(targets)
        assert pairs > 0
    else:
        assert set(targets) == {None}
    if rule == "bayes":
        for part in ("trees", "judgements"):
            (tmp_path / part).symlink_to(made / part)
        report.main(ReportConfig(tmp_path))
        results = json.loads((tmp_path / "synthesis.json").read_text())
        assert results["sources"][INJECTED]["rates"]["specificity"] == "0.999 (declared)"
        assert results["artifacts"]["injected"] == len(targets)
        written = [leaf for run in TreeRun(made / "plain") for leaf in run.tree.leaves]
        assert sum(results["trees"]["answer_forms"].values()) == len(written), "an injected step is no solution"


def test_a_share_that_allows_no_step_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no step was injected; raise share \(now 0.001\)"):
        inject.main(InjectConfig(made / "plain", tmp_path / "trees", share=0.001))
    assert not (tmp_path / "trees" / "done.json").exists()
    with pytest.raises(ValueError, match="maker: model needs a model"):
        inject.main(InjectConfig(made / "plain", tmp_path / "trees", maker="model"))


def test_more_injected_steps_than_their_cap_are_refused(made: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(made / "trees", tmp_path / "trees"))
    told = json.loads((run / INJECTED_FILE).read_text())
    (run / INJECTED_FILE).write_text(json.dumps({**told, "share": 0.01}))
    with pytest.raises(ValueError, match=r"injected steps among \d+, above the run's share of 0.01; make the run"):
        label.main(LabelConfig(run, tmp_path / "labels"))


class Rewriter:
    """Rewrites a step as it is told to."""

    dialect = "relative_1000"
    zoom = ZoomPolicy()

    def __init__(self, answer: str) -> None:
        self.answer, self.asked = answer, list[Request]()

    def seen_size(self, problem: Problem, shown: Any = 0) -> tuple[int, int]:
        raise AssertionError

    async def sample(self, request: Request) -> list[Continuation]:
        self.asked.append(request)
        return [Continuation(self.answer, 3, True)]


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (json.dumps({"step": "[perception] A is 99"}), None),
        (json.dumps({"step": "[answer] 99"}), "another_kind"),
        (json.dumps({"step": ""}), "another_kind"),
        ("no", "not_json"),
        (json.dumps({"steps": []}), "bad_field"),
    ],
)
def test_a_model_rewrites_steps_that_often_led_to_the_answer(answer: str, cause: str | None) -> None:
    problem, failures = PROBLEMS[0], Counter[str]()
    tree, engine = tree_of(problem), Rewriter(answer)
    config = InjectConfig(Path(), Path(), maker="model", kinds=("perception",))
    found = asyncio.run(rewrites_of_tree(problem, tree, engine, config, 1, failures))  # type: ignore[arg-type]
    assert dict(failures) == ({cause: 1} if cause else {})
    assert [one.kind for one in found] == ([] if cause else ["perception"])
    for one in found:
        assert tree.nodes[one.node].step.text.strip() in engine.asked[0].problem.question
        assert engine.asked[0].problem.images == problem.images
