"""How a judge is asked, and how its answers are read: an answer without a judgement gives no result."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_synth.search.config import TreeSearchConfig
from data_synth.search.estimators import search
from tests.teacher import TeacherEngine
from vlprm.errors import ProblemError
from vlprm.labels.judge import NoJudgement, judge_problem, judge_schema, majority, parse_judgement
from vlprm.schema import Problem, StepTree, Verdict
from vlprm.tasks import TASKS

PROBLEMS = [TASKS[name].problem("test", i) for i in range(2) for name in ("chart", "fine_print")]


def tree_of(problem: Problem) -> StepTree:
    return asyncio.run(search(problem, TeacherEngine(0.3), TreeSearchConfig(searches=1), seed=1))


def said(*verdicts: str, correction: str = "") -> str:
    steps = [
        {"step": i, "reason": f"because {i}", "verdict": "correct" if v == "none" else "wrong", "error": v}
        for i, v in enumerate(verdicts, 1)
    ]
    return json.dumps({"steps": steps, "correction": correction})


def test_a_judgement_is_read() -> None:
    text = said("none", "perception", "reasoning", correction="[perception] 3 bars")
    fenced = (f"```json\n{text}\n```", f"```\n{text}\n```\n", f"```JSON\n{text}\n```", f"```json {text}```")
    for form in (text, f"\ufeff{text}", *fenced):
        assert parse_judgement(form, 3) == [
            Verdict(True, None, "because 1"),
            Verdict(False, "perception", "because 2", "[perception] 3 bars"),
            Verdict(False, "reasoning", "because 3"),
        ]


def test_a_judge_may_think_before_its_judgement() -> None:
    """It may name other verdicts, and even write JSON, before the judgement with which it ends."""
    text, other = said("none", "perception"), said("reasoning", "none")
    thoughts = f"Step 1 is not incorrect. A draft: {other}\n```json\n{other}\n```\nNo."
    for form in (
        f"<think>{thoughts}</think>\n{text}",
        f"{thoughts}</think>\n\n```json\n{text}\n```",
        f"{thoughts}\n```json\n{text}\n```",
        f"Step 2 misreads the image. {text}",
    ):
        assert [verdict.error_kind for verdict in parse_judgement(form, 2)] == [None, "perception"]


def test_an_aligned_judgement_keeps_what_a_step_builds_on() -> None:
    def aligned(**changes: Any) -> str:
        steps = [
            {"step": 1, "reason": "reads", "uses": [], "matches": [1, 2], "verdict": "correct", "error": "none"},
            {"step": 2, "reason": "adds", "uses": [1], "matches": [], "verdict": "wrong", "error": "reasoning"},
        ]
        steps[1].update(changes)
        return json.dumps({"steps": steps, "correction": ""})

    read = parse_judgement(aligned(), 2, "judge_reference@2")
    assert [(v.correct, v.reason) for v in read] == [(True, "reads; matches lines 1, 2"), (False, "adds; uses steps 1")]
    for text, cause in [
        (aligned(uses=[2]), "unknown_step"),  # a step does not build on itself
        (aligned(matches="1"), "bad_field"),
        (said("none", "none"), "bad_field"),
    ]:
        with pytest.raises(NoJudgement) as caught:
            parse_judgement(text, 2, "judge_reference@2")
        assert caught.value.cause == cause
    with pytest.raises(NoJudgement):
        parse_judgement(aligned(), 2)
    fields = judge_schema(2, "judge_reference@2")["properties"]["steps"]["items"]["required"]
    assert fields == ["step", "reason", "uses", "matches", "verdict", "error"]


@pytest.mark.parametrize("verdict", ["incorrect", "not correct", "", None])
def test_a_grade_that_is_missing_or_unknown_is_neither_right_nor_wrong(verdict: str | None) -> None:
    body = json.loads(said("none", "none"))
    if verdict is None:
        del body["steps"][1]["verdict"]
    else:
        body["steps"][1]["verdict"] = verdict
    with pytest.raises(NoJudgement, match="bad_field"):
        parse_judgement(json.dumps(body), 2)


def test_latex_in_a_judgement_keeps_its_commands() -> None:
    """A case is what a judge writes between quotes, and what it means."""
    lines = (Path(__file__).parents[1] / "fixtures/judge_latex.jsonl").read_text().splitlines()
    for case in map(json.loads, lines):
        step = f'{{"step": 1, "reason": "{case["written"]}", "verdict": "wrong", "error": "reasoning"}}'
        text = f'{{"steps": [{step}], "correction": "[reasoning] {case["written"]}"}}'
        (verdict,) = parse_judgement(text, 1)
        assert (verdict.reason, verdict.correction) == (case["meant"], f"[reasoning] {case['meant']}")
    assert len(lines) > 30


def edited(**changes: Any) -> str:
    body = json.loads(said("none", "perception"))
    body["steps"][1].update(changes)
    return json.dumps(body)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("the second step is wrong", "not_json"),
        (said("none", "none")[:-2], "not_json"),
        (said("none", "none") + " That is all.", "not_json"),
        ("<think>both are correct</think>", "not_json"),
        ("[" * 100_000, "not_json"),
        ("", "not_json"),
        ("[]", "bad_field"),
        ('{"steps": []}', "bad_field"),
        (said("none"), "step_count"),
        (said("none", "none", "none"), "unknown_step"),
        (edited(step=1), "step_count"),
        (edited(step=0), "unknown_step"),
        (edited(step="2"), "bad_field"),
        (edited(step=True), "bad_field"),
        (edited(verdict="maybe"), "bad_field"),
        (edited(error="typo"), "bad_field"),
        (edited(score=1), "bad_field"),
        (edited(verdict="correct"), "contradiction"),
        (edited(error="none"), "contradiction"),
        (said("none", "none", correction="[answer] 3"), "contradiction"),
    ],
)
def test_what_is_no_judgement_is_no_result(text: str, cause: str) -> None:
    with pytest.raises(NoJudgement) as caught:
        parse_judgement(text, 2)
    assert caught.value.cause == cause


def test_the_majority_speaks_and_a_tie_does_not() -> None:
    yes, misread = Verdict(True), Verdict(False, "perception", "misread", "[perception] 4")
    slip = Verdict(False, "reasoning", "slip")
    assert majority([yes, misread, misread]) == dataclasses.replace(misread, agreement=2 / 3)
    assert majority([slip, misread, misread, yes]) == dataclasses.replace(misread, agreement=3 / 4)
    assert majority([yes, misread]) is None
    assert majority([]) is None
    assert majority([yes]) == yes


def test_a_majority_takes_its_correction_from_its_kind_and_then_from_its_side() -> None:
    misread = Verdict(False, "perception", "it is 3")
    slip = Verdict(False, "reasoning", "7 + 2 is 9", "[reasoning] 7 + 2 = 9")
    found = majority([slip, misread, misread])
    assert found == dataclasses.replace(misread, correction=slip.correction)
    corrected = dataclasses.replace(misread, correction="[perception] A is 3")
    assert majority([slip, misread, corrected]) == corrected


def test_the_judge_sees_the_question_the_steps_and_what_the_zooms_saw() -> None:
    problem = dataclasses.replace(PROBLEMS[1], meta={"solution": "look closer"})
    tree = tree_of(PROBLEMS[1])
    path = next(p for p in map(tree.path, dict(tree.leaves)) if any(tree.nodes[n].step.region for n in p))
    steps = [tree.nodes[n].step for n in path]
    asked = judge_problem(problem, steps, "judge@1")
    assert problem.question in asked.question
    assert all(f"{i}. {step.text.strip()}" in asked.question for i, step in enumerate(steps, 1))
    assert "right answer" not in asked.question
    crops = [Image.open(io.BytesIO(image)).size for image in asked.images[len(problem.images) :]]
    regions = [step.region for step in steps if step.region]
    assert len(crops) == len(regions) > 0
    assert all(abs(c[0] - (r.x1 - r.x0)) <= 1 for c, r in zip(crops, regions, strict=True))
    assert f"The right answer is: {problem.answer}" in judge_problem(problem, steps, "judge_answer@1").question
    assert "look closer" in judge_problem(problem, steps, "judge_reference@1").question
    lines = judge_problem(
        dataclasses.replace(problem, meta={"solution": "a\n\nb"}), steps, "judge_reference@2"
    ).question
    assert "1. a\n2. b\n" in lines
    with pytest.raises(ProblemError, match="has no reference for judge_reference@1; judge it with judge@1"):
        judge_problem(PROBLEMS[1], steps, "judge_reference@1")
