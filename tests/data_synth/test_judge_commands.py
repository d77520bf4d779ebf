"""Every kind of judge, and the model that makes wrong steps, run by their flags and recipes; a model is a server that
answers as a careful reader of one chart would."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_synth import inject, judge, label
from data_synth.injected.config import InjectConfig
from data_synth.judges.config import JUDGEMENTS, JudgeConfig
from data_synth.labels.config import LabelConfig
from data_synth.search.config import TreeSearchConfig
from data_synth.search.estimators import search
from data_synth.search.store import IMAGES, TREES, Searched, TreeRun, tree_record
from tests.labels.test_judgements import tree_of
from tests.stand_in import Answer, Body, StandIn, completion
from tests.teacher import TeacherEngine
from vlprm.data.dataset import read_rows
from vlprm.labels.fusion import INJECTED
from vlprm.runs.config import parse
from vlprm.runs.folder import open_run
from vlprm.runs.journal import Records, finish, read_records
from vlprm.schema import StepTree, Verdict
from vlprm.tasks import TASKS

CHART = TASKS["chart"].problem("test", 0)  # how much taller is B than A?
BARS = {"A": 3, "B": 7}
REFERENCE = "A is 3.\nB is 7.\n7 - 3 = 4.\nThe answer is 4."
SERVED = ["--model.checkpoint", "policy", "--model.server.model", "policy", "--model.server.base_urls"]


def write_trees(folder: Path, tree: StepTree) -> None:
    """A run folder of this tree, whose problem has a reference solution."""
    problem = replace(CHART, meta={**CHART.meta, "solution": REFERENCE})
    open_run(folder, "", 0)
    records = Records(folder / TREES)
    records.append([tree_record(0, Searched(problem, tree), folder / IMAGES)])
    finish(records)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with a tree."""
    write_trees(tmp_path / "trees", tree_of(CHART))
    return tmp_path


def judged(run: Path, name: str, *flags: str) -> list[tuple[str, Verdict | None, Verdict | None]]:
    """Judges the tree by flags of the command; each step with its verdict and the truth."""
    judge.main(parse(JudgeConfig, ["--trees", str(run / "trees"), "--run", str(run / name), *flags]))
    (record,) = read_records(run / name / JUDGEMENTS)
    (searched,) = TreeRun(run / "trees")
    truth = {
        node: verdict
        for leaf, _ in searched.tree.leaves
        for path in [searched.tree.path(leaf)]
        for node, verdict in zip(
            path, TASKS["chart"].verdicts(CHART, [searched.tree.nodes[n].step for n in path]), strict=True
        )
    }
    said = [verdict and Verdict(**verdict) for verdict in record["verdicts"]]
    return [
        (node.step.text.strip(), verdict, truth[n])
        for n, (node, verdict) in enumerate(zip(searched.tree.nodes, said, strict=True))
    ]


def votes_of(run: Path, *names: str) -> set[str]:
    """The sources whose votes are in the labels that are made from these judgements."""
    label.main(LabelConfig(run / "trees", run / "labels", tuple(run / name for name in names)))
    rows = read_rows(run / "labels/dataset.parquet")
    return {name for row in rows for node in json.loads(row["evidence"]) for name in node["label"]["votes"]}


def assert_readings_are_true(found: Sequence[tuple[str, Verdict | None, Verdict | None]]) -> None:
    spoken = [(text, said, truth) for text, said, truth in found if said]
    assert {said.correct for _, said, _ in spoken if said} == {True, False}
    assert all(truth and said and said.correct == truth.correct for _, said, truth in spoken)
    assert {text.partition("]")[0] for text, _, _ in spoken} == {"[perception"}


def text_of(body: Body) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)


def shows_an_image(body: Body) -> bool:
    return "image_url" in json.dumps(body["messages"])


def serve(server: StandIn, answer: Callable[[Body], dict[str, Any]]) -> None:
    """Lets the server answer with this JSON, and the initial check with a word."""

    def reply(body: Body) -> Answer:
        return completion(*[json.dumps(answer(body))] * body["n"]) if "n" in body else completion("yes")

    server.reply = reply


def test_a_simulated_reader_judges_readings_alone(run: Path) -> None:
    assert_readings_are_true(judged(run, "asked", "--judge", "ask", "--error_rate", "0"))
    assert votes_of(run, "asked") == {"asked"}


def test_a_served_reader_judges_readings_by_the_recipe(run: Path, server: StandIn) -> None:
    def answer(body: Body) -> dict[str, Any]:
        if shows_an_image(body):
            (bar,) = re.findall(r"How tall is (\w)\?", text_of(body))
            return {"answer": str(BARS[bar])}
        ((bar, said),) = re.findall(r"\[perception\] (\w) is (\d+)", text_of(body))
        return {"question": f"How tall is {bar}?", "answer": said, "type": "integer"}

    serve(server, answer)
    recipe = ["--config", "configs/server/ask.yaml", "--model.server.base_urls", json.dumps([server.url])]
    found = judged(run, "asked", *recipe)
    assert_readings_are_true(found)
    assert {said.reason for _, said, _ in found if said} == {"How tall is A? 3", "How tall is B? 7"}
    readings = [body for body in server.asked if "n" in body and shows_an_image(body)]
    assert {body["n"] for body in readings} == {3}
    assert votes_of(run, "asked") == {"asked"}


def test_the_checker_of_arithmetic_finds_false_sums_and_nothing_else(run: Path) -> None:
    found = judged(run, "sums", "--judge", "check", "--check", "arithmetic")
    wrong = {text for text, said, _ in found if said}
    assert "[reasoning] 7 - 3 = 3" in wrong
    assert "[reasoning] 7 - 3 = 4" in {text for text, said, _ in found if not said}
    assert all(said is None or not said.correct for _, said, _ in found)
    assert votes_of(run, "sums") == {"sums"}


def test_a_judge_with_a_reference_aligns_each_step(run: Path, server: StandIn) -> None:
    def answer(body: Body) -> dict[str, Any]:
        assert "2. B is 7." in text_of(body), "the reference has numbered lines"
        (count,) = re.findall(r"each of the (\d+) steps", text_of(body))
        steps = [
            {"step": n, "reason": "", "uses": [*range(1, n)], "matches": [n], "verdict": "correct", "error": "none"}
            for n in range(1, int(count) + 1)
        ]
        return {"steps": steps, "correction": ""}

    serve(server, answer)
    flags = ["--judge", "model", "--sampling.template", "judge_reference@2", *SERVED, json.dumps([server.url])]
    found = judged(run, "aligned", *flags)
    assert {said.reason for _, said, _ in found if said} >= {"matches lines 1", "uses steps 1; matches lines 2"}
    assert votes_of(run, "aligned") == {"aligned"}


def test_a_judge_of_premises_reads_each_step_alone(run: Path, server: StandIn) -> None:
    def answer(body: Body) -> dict[str, Any]:
        text = text_of(body)
        if not shows_an_image(body):
            (step,) = re.findall(r"does step (\d+) build on", text)
            return {"uses": [*range(1, int(step))]}
        (step,) = re.findall(r"The step: (.*)", text)
        wrong = step == "[reasoning] 7 - 3 = 3"
        return {"reason": step, "verdict": "wrong" if wrong else "correct", "error": "reasoning" if wrong else "none"}

    serve(server, answer)
    flags = ["--judge", "model", "--sampling.template", "judge_premises@1", *SERVED, json.dumps([server.url])]
    found = judged(run, "premises", *flags)
    assert {text for text, said, _ in found if said and not said.correct} == {"[reasoning] 7 - 3 = 3"}
    assert all(said is None or said.reason == text for text, said, _ in found), "each is judged by its own words"
    (record,) = read_records(run / "premises" / JUDGEMENTS)
    assert record["local"]
    assert votes_of(run, "premises") == {"premises"}


def test_a_served_model_injects_errors_that_labels_know(tmp_path: Path, server: StandIn) -> None:
    run, config = tmp_path, TreeSearchConfig(estimator="flat", solutions=3)
    write_trees(run / "trees", asyncio.run(search(CHART, TeacherEngine(0.2), config, seed=1)))
    serve(server, lambda body: {"step": re.findall(r"^\[\w+\] .*", text_of(body), re.MULTILINE)[-1] + "9"})
    flags = ["--trees", str(run / "trees"), "--run", str(run / "injected"), "--maker", "model", "--share", "0.5"]
    inject.main(parse(InjectConfig, [*flags, *SERVED, json.dumps([server.url])]))
    (plain,), (made,) = TreeRun(run / "trees"), TreeRun(run / "injected")
    new = made.tree.nodes[len(plain.tree.nodes) :]
    assert 1 <= len(new) <= 2
    for node in new:
        vote = node.label.votes[INJECTED]
        assert node.step.text == f"{vote.correction}9"
        assert not vote.correct
    label.main(LabelConfig(run / "injected", run / "labels"))
    (row,) = read_rows(run / "labels/dataset.parquet")
    assert sum(INJECTED in node["label"]["votes"] for node in json.loads(row["evidence"])) == len(new)
