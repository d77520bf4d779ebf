"""Critiques are compared with the truth; a call that failed says nothing about the critic."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval import critiques
from eval.step_scores.config import CritiquesConfig
from tests.conftest import solved
from tests.served_critic import serve_critic
from tests.stand_in import Answer, Body, StandIn
from tests.stored import pool_record, write_run
from vlprm.errors import UserError
from vlprm.runs.config import parse
from vlprm.schema import Solution
from vlprm.tasks import TASKS

PROBLEMS = [TASKS[name].problem("test", i) for i in range(2) for name in ("chart", "count_grid")]


@pytest.fixture
def config(backbone: Path, tmp_path: Path, server: StandIn) -> CritiquesConfig:
    """A right solution of each problem, and a served critic."""
    pools = [
        pool_record(at, p, [Solution(p.id, tuple(solved(p)), p.answer, "answer", 9)]) for at, p in enumerate(PROBLEMS)
    ]
    critic = serve_critic(server, backbone, tmp_path / "critic", PROBLEMS)
    flags = ["--candidates", str(write_run(tmp_path / "eval", pools)), "--reward_model", critic]
    config = parse(CritiquesConfig, [*flags, "--run", str(tmp_path / "run")])
    served = replace(config.reward_model.server, retries=0)
    return replace(config, reward_model=replace(config.reward_model, server=served))


def results_of(config: CritiquesConfig) -> dict[str, Any]:
    critiques.main(config)
    found: dict[str, Any] = json.loads((config.run / "results.json").read_text())
    return found


def test_a_failed_call_counts_neither_for_nor_against_the_critic(config: CritiquesConfig, server: StandIn) -> None:
    answered = server.reply
    lost = json.dumps(PROBLEMS[0].question)

    def reply(body: Body) -> Answer:
        return (400, "text/plain", "no") if lost in json.dumps(body["messages"]) else answered(body)

    whole = results_of(config)
    assert (whole["no_error_found"]["of"], whole["failures"]) == (len(PROBLEMS), {})
    server.reply = reply
    part = results_of(replace(config, run=config.run.with_name("part")))
    failed = sum(p.question == PROBLEMS[0].question for p in PROBLEMS)
    assert sum(part["failures"].values()) == failed
    assert part["read"]["of"] == part["no_error_found"]["of"] == len(PROBLEMS) - failed
    assert part["read"]["share"] == 1.0


def test_a_critic_that_never_answers_is_no_result(config: CritiquesConfig, server: StandIn) -> None:
    asked = replace(config, problems=1)
    answered, calls = server.reply, len(server.asked)

    def reply(body: Body) -> Answer:  # the client's check of the server is answered
        return answered(body) if len(server.asked) <= calls + 2 else (400, "text/plain", "no")

    server.reply = reply
    with pytest.raises(UserError, match="none of 1 critiques was written"):
        critiques.main(asked)
    assert not (asked.run / "results.json").exists()
