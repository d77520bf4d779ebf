"""Claims within a perception step: where they stand, and which is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_synth.claims import CLAIMS, main
from data_synth.labels.config import ClaimsConfig
from tests.conftest import executed
from tests.perf.pools import solutions_of
from tests.stored import pool_record, write_run
from vlprm.schema import Problem, Step
from vlprm.steps import parse_step
from vlprm.tasks import TASKS
from vlprm.tasks.scene import rng_for
from vlprm.tasks.spans import ClaimSpan, claim_spans
from vlprm.tasks.synthetic import SyntheticFamily


def careless(family: SyntheticFamily, problem: Problem, seed: int) -> list[Step]:
    rng = rng_for("claims", seed, problem.id)

    def write(kind: str, concept: str, truth: Any, near: Any) -> Any:
        return rng.choice(near) if near and rng.random() < 0.3 else truth

    return [executed(parse_step(text)) for text in family.solve(problem.meta["scene"], write)]  # type: ignore[arg-type]


def repaired(step: Step, spans: list[ClaimSpan]) -> Step:
    """The step with the true words in the place of wrong ones."""
    text = step.text
    for span in reversed(spans):
        text = text[: span.start] + span.true + text[span.end :]
    return parse_step(text)


@pytest.mark.parametrize("family", TASKS.values(), ids=list(TASKS))
def test_a_step_is_right_if_its_claims_are_and_repaired_claims_make_it_right(family: SyntheticFamily) -> None:
    claims = wrong_steps = parts = 0
    for i in range(12):
        problem = family.problem("test", i, drawn=False)
        steps = careless(family, problem, i)
        truth = family.verdicts(problem, steps)
        for k, spans in enumerate(claim_spans(family, problem, steps)):
            assert bool(spans) <= (steps[k].kind == "perception")
            verdict = truth[k]
            if spans and verdict is not None:
                assert verdict.correct == all(span.correct for span in spans)
                fixed = [*steps[:k], repaired(steps[k], spans)]
                again = family.verdicts(problem, fixed)[-1]
                assert again is not None
                assert again.correct
                claims += len(spans)
                wrong_steps += not verdict.correct
                parts += not verdict.correct and any(span.correct for span in spans)
    assert claims > 12
    assert wrong_steps
    assert parts  # a wrong step with a right claim


def test_spans_are_places_in_the_text_as_it_stands() -> None:
    family = TASKS["count_grid"]
    scene = {"content": {"type": "both", "cells": [[["red", "star"], None, ["blue", "star"]]], "target": "red star"}}
    problem = Problem("x", "count_grid", "", (), None, "integer", {"scene": scene})
    texts = (
        " [perception] row 1: red star none red star ",
        "[perception] row 1: red star none",
        "[reasoning] red star by row: 1 = 1",
        "[perception] something",
    )
    steps = [Step("perception", texts[0]), *map(parse_step, texts[1:])]
    first, short, derived, unread = claim_spans(family, problem, steps)
    assert [texts[0][span.start : span.end] for span in first] == ["red star", "none", "red star"]
    assert [span.correct for span in first] == [True, True, False]
    assert first[2].true == "blue star"
    assert short == [ClaimSpan(13, len(texts[1]), False, "")]
    assert derived == unread == []


def test_the_command_writes_the_claims_of_candidates(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    problems = [TASKS[name].problem("test", 0) for name in ("chart", "figure")]
    records = [pool_record(i, p, solutions_of(p, 3, rng_for("claims", i))) for i, p in enumerate(problems)]
    run = write_run(tmp_path / "eval", records)
    with caplog.at_level("INFO"):
        main(ClaimsConfig(run, tmp_path / "claims"))
    lines = [json.loads(line) for line in (tmp_path / "claims" / CLAIMS).read_text().splitlines()]
    assert [line["key"] for line in lines] == [f"{p.id}/{i}" for p in problems for i in range(3)]
    claims = [claim for line in lines for step in line["steps"] for claim in step["claims"]]
    assert f"{len(claims)} claims of" in caplog.text
    assert {step["kind"] for line in lines for step in line["steps"] if step["claims"]} == {"perception"}
    with pytest.raises(ValueError, match="add the task"):
        main(ClaimsConfig(run, tmp_path / "other", ("chart",)))
