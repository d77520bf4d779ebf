"""Rewards of models that were not trained to give any: a prompted judge, verdicts, likelihood."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from vlprm.model.reward_loading import load_reward_model
from vlprm.policy import Continuation, Request
from vlprm.schema import Problem, Step, StepScore
from vlprm.scoring.config import ScorerConfig
from vlprm.scoring.judged import JudgeScorer
from vlprm.scoring.open import open_scorer
from vlprm.scoring.tree import score, score_steps
from vlprm.serving.config import ModelConfig, ServerConfig
from vlprm.steps import parse_step
from vlprm.tasks import TASKS
from vlprm.zoom.policy import ZoomPolicy

PROBLEM = TASKS["count_grid"].problem("test", 0)
STEPS = [parse_step(text) for text in ("[perception] 3 red", "[reasoning] 3 + 1 = 5", "[answer] 5")]


class Answers:
    """A model that answers with these texts; None is a failed call."""

    dialect = "relative_1000"
    zoom = ZoomPolicy()

    def __init__(self, *texts: str | None) -> None:
        self.texts, self.asked = texts, list[Request]()

    async def sample(self, request: Request) -> list[Continuation]:
        self.asked.append(request)
        return [Continuation(t or "", 2, t is not None, "" if t else "timeout", read=10) for t in self.texts]


def judgement(*right: bool) -> str:
    said = [
        {"step": n, "reason": "", "verdict": "correct" if ok else "wrong", "error": "none" if ok else "reasoning"}
        for n, ok in enumerate(right, 1)
    ]
    return json.dumps({"steps": said, "correction": "" if all(right) else "3 + 1 = 4"})


def shares(form: str, *texts: str | None, steps: Sequence[Step] = STEPS) -> list[float | None]:
    found = asyncio.run(JudgeScorer(Answers(*texts), form, len(texts)).score(PROBLEM, [steps]))  # type: ignore[arg-type]
    return [None if s is None else s.correct for s in found.steps[0]]


def test_a_judges_reward_is_the_share_of_answers_that_call_a_step_right() -> None:
    assert shares("judge", judgement(True, False, True)) == [1.0, 0.0, 1.0]
    texts = judgement(True, False, False), judgement(True, True, False), "I think so", None
    assert shares("judge", *texts) == [1.0, 0.5, 0.0]
    assert shares("judge", "no", None) == [None, None, None]
    assert shares("judge", judgement(True, True)) == [None, None, None]  # another number of steps
    assert shares("judge", judgement(True), steps=[parse_step("a<|im_end|>")]) == [None]
    engine = Answers(judgement(True, True, True))
    scored = asyncio.run(JudgeScorer(engine, "judge", 1).score(PROBLEM, [STEPS]))  # type: ignore[arg-type]
    (request,) = engine.asked
    assert (request.temperature, request.steps, scored.read) == (0.0, (), [12])
    assert "2. [reasoning] 3 + 1 = 5" in request.problem.question


@pytest.mark.parametrize(
    ("text", "rewards"),
    [
        ('{"first_wrong": 2}', [1.0, 0.0, 0.0]),
        ('```json\n{"first_wrong": 0}\n```', [1.0, 1.0, 1.0]),
        ('{"first_wrong": 1}', [0.0, 0.0, 0.0]),
        ('{"first_wrong": 4}', [None] * 3),
        ('{"first_wrong": true}', [None] * 3),
        ("[2]", [None] * 3),
    ],
)
def test_steps_from_the_first_wrong_one_on_have_no_reward(text: str, rewards: list[float | None]) -> None:
    assert shares("first_error", text) == rewards


def opened(folder: Path, kind: str) -> list[StepScore | None]:
    async def ask() -> list[StepScore | None]:
        async with open_scorer([ModelConfig(str(folder), device="cpu")], ScorerConfig(kind)) as scorer:  # type: ignore[arg-type]
            return (await scorer.score(PROBLEM, [STEPS])).steps[0]

    return asyncio.run(ask())


def test_joint_scores_come_from_the_verdicts_of_any_model(backbone: Path) -> None:
    (verdicts,) = score(load_reward_model(backbone, new_head="verdict"), [(PROBLEM, STEPS)])
    found = [s and s.correct for s in opened(backbone, "joint")]
    assert found == pytest.approx([math.prod(verdicts[:end]) for end in (1, 2, 3)], abs=1e-5)  # type: ignore[arg-type]
    assert found == sorted(found, reverse=True)  # type: ignore[type-var]


def test_likelihood_is_that_of_the_least_likely_token(backbone: Path) -> None:
    read = load_reward_model(backbone, new_head="step", reads_surprise=True)
    (scores,) = score_steps(read, [(PROBLEM, STEPS)])
    found = [s and s.correct for s in opened(backbone, "likelihood")]
    assert found == pytest.approx([math.exp(-s.surprise) for s in scores if s and s.surprise is not None], abs=1e-5)


def test_servers_do_not_give_joint_scores(tmp_path: Path) -> None:
    async def enter() -> None:
        model = ModelConfig(str(tmp_path), ServerConfig(("http://localhost:1/v1",), "m"))
        async with open_scorer([model], ScorerConfig("joint")):
            pass

    with pytest.raises(ValueError, match="servers score steps only"):
        asyncio.run(enter())


def test_a_question_without_images_is_asked_as_one() -> None:
    engine = Answers('{"first_wrong": 0}')
    text_alone = Problem("p", "t", "What is 3 + 1?", (), None, "word")
    asyncio.run(JudgeScorer(engine, "first_error", 1).score(text_alone, [STEPS]))  # type: ignore[arg-type]
    assert "images" not in engine.asked[0].problem.question


def test_a_judge_in_this_process_reads_the_question_alone(backbone: Path, tmp_path: Path) -> None:
    """Otherwise it would read a request to solve the problem in tagged steps after the judge's question."""
    shutil.copytree(backbone, tmp_path / "hub")
    (tmp_path / "hub" / "vlprm.json").unlink()

    async def template() -> str:
        async with open_scorer([ModelConfig(str(tmp_path / "hub"), device="cpu")], ScorerConfig("judge")) as scorer:
            return str(scorer.engine.checkpoint.config.prompt_template)  # type: ignore[attr-defined]

    assert asyncio.run(template()) == "plain@1"
