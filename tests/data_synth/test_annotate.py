"""A person as a source of labels: the real command, a page in Chromium, its journal, and the labels made from it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from data_synth import annotate, judge, label
from data_synth.annotations.config import AnnotateConfig
from data_synth.annotations.journal import ANNOTATIONS, AnnotationJournal, Said, read_labels
from data_synth.annotations.queue import Fused, StepQuestions, Unfused, doubt, most_doubtful
from data_synth.judges.config import JudgeConfig
from data_synth.labels.config import LabelConfig
from data_synth.search.config import TreeSearchConfig
from data_synth.search.estimators import search
from data_synth.search.store import IMAGES, TREES, Searched, TreeRun, tree_record
from tests.browser import opened_page
from tests.teacher import TeacherEngine
from vlprm.data.dataset import read_rows
from vlprm.runs.folder import open_run
from vlprm.runs.journal import Records, finish, read_records
from vlprm.schema import StepLabel, Verdict
from vlprm.tasks import TASKS

PROBLEMS = [TASKS["fine_print"].problem("test", i) for i in range(6)]


def searched(folder: Path, seed: int = 1) -> Path:
    open_run(folder, "", seed)
    records = Records(folder / TREES)
    for at, problem in enumerate(PROBLEMS):
        tree = asyncio.run(search(problem, TeacherEngine(0.3), TreeSearchConfig(searches=1), seed))
        records.append([tree_record(at, Searched(problem, tree), folder / IMAGES)])
    finish(records)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with trees, two judges' verdicts, and labels."""
    run = tmp_path_factory.mktemp("run")
    searched(run / "trees")
    judges = (run / "strong", run / "weak")
    for folder, rate in zip(judges, (0.1, 0.4), strict=True):
        judge.main(JudgeConfig(run / "trees", folder, error_rate=rate))
    label.main(LabelConfig(run / "trees", run / "labels", judges))
    return run


def targets(dataset: Path) -> dict[tuple[str, int], float | None]:
    rows = read_rows(dataset / "dataset.parquet")
    return {(row["id"], node): target for row in rows for node, target in enumerate(row["labels"])}


def answers(folder: Path) -> list[tuple[str, int, str, str]]:
    records = read_records(folder / ANNOTATIONS)
    return [(record["key"], record["step"], record["verdict"], record["reason"]) for record in records]


@contextmanager
def command(made: Path, person: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command as a process, and the address of its page."""
    words = ["--trees", made / "trees", "--labels", made / "labels", "--run", person, "--port", "0", "--steps", "30"]
    words += ["--specificity", "0.99", "--sensitivity", "0.99"]
    process = subprocess.Popen(
        [sys.executable, "-m", "data_synth.annotate", *map(str, words)], stderr=subprocess.PIPE, text=True
    )
    said = ""
    try:
        assert process.stderr is not None
        for line in process.stderr:
            said += line
            if found := re.search(r"open (http://127\.0\.0\.1:\d+/)", line):
                yield process, found[1]
                return
        raise AssertionError(said)
    finally:
        process.kill()
        process.wait()


def shown_step(page: Page) -> str:
    return page.locator("#asked .step[aria-current] .text").inner_text()


def test_two_steps_are_labelled_survive_a_kill_and_change_their_targets(made: Path, tmp_path: Path) -> None:
    alice = tmp_path / "alice"
    with command(made, alice) as (process, url), opened_page(url) as page:
        expect(page.locator("#progress")).to_have_text("0 of 30")
        expect(page.locator("#asked .step[aria-current] .votes")).to_contain_text("strong: ")
        question = page.locator("#asked .question").inner_text() + shown_step(page)
        page.keyboard.press("1")
        expect(page.locator("#progress")).to_have_text(re.compile(r"^1 of 30"))
        expect(page).not_to_have_url(re.compile("#1$"))
        assert question != page.locator("#asked .question").inner_text() + shown_step(page)
        expect(page.locator("#reason")).to_have_value("")
        page.keyboard.press("r")
        page.keyboard.type("1 and 2 differ")
        page.keyboard.press("Escape")
        second_question = page.url
        page.get_by_role("button", name="wrong: perception").click()
        expect(page).not_to_have_url(second_question)
        expect(page.locator("#asked img")).to_have_js_property("complete", True)
        progress = page.locator("#progress").inner_text()
        process.send_signal(signal.SIGKILL)
        process.wait()
    first, second = answers(alice)
    assert (first[2:], second[2:]) == (("correct", ""), ("perception", "1 and 2 differ"))
    with command(made, alice) as (_, url), opened_page(url) as page:
        expect(page.locator("#progress")).to_have_text(progress)
    sources = (alice, made / "strong", made / "weak")
    label.main(LabelConfig(made / "trees", tmp_path / "labels", sources))
    before, after = targets(made / "labels"), targets(tmp_path / "labels")
    right, wrong = first[:2], second[:2]
    assert (after[right] or 0) > max(0.8, before[right] or 0)
    assert (after[wrong] or 0) < min(0.2, before[wrong] or 0)
    meta = json.loads(read_rows(tmp_path / "labels" / "dataset.parquet")[0]["meta"])
    told = meta["reliability"]["sources"]["alice"]
    assert (told["kind"], told["declared"]) == ("a person", True)
    label.main(LabelConfig(made / "trees", tmp_path / "told", sources[1:], gold=alice / ANNOTATIONS))


def test_a_person_who_overrides_leaves_the_choice_of_solutions_to_the_judges(made: Path, tmp_path: Path) -> None:
    """And of two answers about a step the last one counts, while one who is not sure is silent."""
    trees = TreeRun(made / "trees")
    bob = tmp_path / "bob"
    open_run(bob, "", 0, trees.files)
    row = read_rows(made / "labels" / "dataset.parquet")[0]
    journal = AnnotationJournal(bob / ANNOTATIONS, {row["id"]}, None)
    for step, verdict in ((0, "correct"), (0, "reasoning"), (1, "action"), (1, "unsure")):
        journal.add(row["id"], step, Said(verdict))
    journal.close()
    label.main(LabelConfig(made / "trees", tmp_path / "labels", (bob, made / "strong"), "judge"))
    (changed,) = [r for r in read_rows(tmp_path / "labels" / "dataset.parquet") if r["id"] == row["id"]]
    votes = [evidence["label"]["votes"] for evidence in json.loads(changed["evidence"])]
    assert (votes[0]["bob"]["error_kind"], changed["labels"][0]) == ("reasoning", 0.0)
    assert "bob" not in votes[1]
    assert json.loads(changed["meta"])["solutions"] == json.loads(row["meta"])["solutions"]


def test_a_line_that_a_kill_cut_short_is_dropped_and_a_journal_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / ANNOTATIONS
    journal = AnnotationJournal(path, {"p"}, None)
    journal.add("p", 3, Said("correct"))
    with pytest.raises(ValueError, match=r"annotations\.jsonl is open in another process; give each person a --run"):
        AnnotationJournal(path, {"p"}, None)
    journal.close()
    with path.open("ab") as file:
        file.write(b'{"key": "p", "st')
    journal = AnnotationJournal(path, {"p"}, None)
    journal.add("p", 4, Said("action", "why"))
    journal.close()
    assert read_labels(path, {"p"}).said == {"p": {3: Said("correct"), 4: Said("action", "why")}}
    path.write_text('{"key": "p", "step": 0, "verdict": "maybe"}\n')
    with pytest.raises(ValueError, match="line 1 is not a label of a step"):
        AnnotationJournal(path, {"p"}, None)


def test_the_most_doubtful_steps_come_first_and_no_last_step(made: Path) -> None:
    trees = TreeRun(made / "trees")
    source = Fused(made / "labels", trees)
    for order in ("uncertain", "disagreement"):
        places = most_doubtful(source, order, 10_000)
        labels = [source.tree(place.tree).labels[place.nodes[place.step]] for place in places]
        doubts = [doubt(one, order) for one in labels]
        assert doubts == sorted(doubts)
        assert all(place.step < len(place.nodes) - 1 for place in places)
        assert places[:7] == most_doubtful(source, order, 7)
    split = [len({vote.correct for vote in one.votes.values()}) == 2 for one in labels]
    assert split == sorted(split, reverse=True)
    assert any(split)
    assert not all(split)
    unfused = Unfused(trees)
    assert [unfused.tree(at).problem.id for at in range(len(unfused))] == [problem.id for problem in PROBLEMS]
    assert any(one.target for one in unfused.tree(0).labels)


def test_doubt_by_target_and_by_votes() -> None:
    one, other = Verdict(True), Verdict(False, "action")
    votes = [{}, {"a": one}, {"a": one, "b": other}, {"a": one, "b": other, "c": one}]
    by_votes = [doubt(StepLabel(votes=dict(v), target=0.9), "disagreement") for v in votes]
    assert sorted(by_votes) == [by_votes[2], by_votes[3], by_votes[0], by_votes[1]]
    certainty = {target: doubt(StepLabel(target=target), "uncertain")[0] for target in (None, 0.5, 0.3, 1.0)}
    assert (certainty[None], certainty[0.5]) == (0, 0)
    assert certainty[0.3] < certainty[1.0]


def test_what_follows_a_step_that_the_person_calls_wrong_is_not_asked(made: Path, tmp_path: Path) -> None:
    trees = TreeRun(made / "trees")
    journal = AnnotationJournal(tmp_path / ANNOTATIONS, set(trees.ids), None)
    questions = StepQuestions(Fused(made / "labels", trees), journal, "uncertain", 10_000)
    at = next(at for at in range(len(questions)) if questions.question(at).step >= 2)
    before = questions.progress(at)
    questions.answer(at, 0, "perception", "")
    after = questions.progress(at)
    assert (before.answered, before.moot) == (0, 0)
    assert after.moot >= 1
    assert questions.question(at).mine[0] == "perception"
    questions.answer(at, 0, "unsure", "")
    assert questions.progress(at).moot == 0


def test_the_same_folder_goes_on_with_other_labels_and_not_with_other_trees(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(server: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(annotate.AnnotationServer, "serve_forever", stop)
    config = AnnotateConfig(made / "trees", tmp_path / "alice", made / "labels", port=0)
    annotate.main(config)
    annotate.main(dataclasses.replace(config, labels=None, order="disagreement", steps=5))
    with pytest.raises(ValueError, match="specificity and sensitivity are declared together"):
        annotate.main(dataclasses.replace(config, specificity=0.9))
    other = searched(tmp_path / "trees", seed=2)
    with pytest.raises(ValueError, match="labels was not made from"):
        annotate.main(dataclasses.replace(config, trees=other))
    line = {"key": PROBLEMS[0].id, "step": 0, "verdict": "action"}
    (tmp_path / "alice" / ANNOTATIONS).write_text(json.dumps(line) + "\n")
    with pytest.raises(ValueError, match="alice holds a run with another config"):
        annotate.main(dataclasses.replace(config, trees=other, labels=None))
    empty = AnnotateConfig(made / "trees", tmp_path / "bob", made / "labels", port=0)
    annotate.main(empty)
    with pytest.raises(ValueError, match=r"bob/annotations\.jsonl has no verdict on any step; leave this source out"):
        label.main(LabelConfig(made / "trees", tmp_path / "labels", (tmp_path / "bob",)))
    assert os.path.getsize(tmp_path / "bob" / ANNOTATIONS) == 0
