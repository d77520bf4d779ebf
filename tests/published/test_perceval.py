"""A verifier that lists wrong claims: the request of its public script, written out here, and what its answers give."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.stand_in import Answer, Body, StandIn, completion, config_of
from vlprm.errors import ProblemError, UserError
from vlprm.published import VERIFIERS, perceval
from vlprm.published.load import load
from vlprm.schema import Problem, Step
from vlprm.scoring.claims import wrong_steps
from vlprm.scoring.config import ScorerConfig
from vlprm.scoring.open import open_scorer
from vlprm.serving.config import ModelConfig, ServerConfig
from vlprm.steps import parse_step
from vlprm.tasks import TASKS

SYSTEM, ASKED = "You verify {question}.\n", "\n- **Question:** {question}\n\n- **Response:** {response}\n"
PROBLEM = dataclasses.replace(TASKS["count_grid"].problem("test", 0), question="How many {are} red?")
STEPS = [parse_step(text) for text in ("There are 3 red discs.", "So 3 + 1 = 4.", "It is 4.")]


@pytest.fixture
def checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The folder of a verifier with stand-in prompts, in place of the long public ones."""
    texts = {
        name: dataclasses.replace(getattr(perceval.VERIFIER, name), sha256=hashlib.sha256(text.encode()).hexdigest())
        for name, text in (("system", SYSTEM), ("asked", ASKED))
    }
    monkeypatch.setitem(VERIFIERS, "perceval", dataclasses.replace(perceval.VERIFIER, **texts))
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    (tmp_path / "prompt_design.py").write_text(f"system = {SYSTEM!r}\nasked = {ASKED!r}\n")
    return f"perceval@{tmp_path}"


def scored(
    checkpoint: str, server: ServerConfig, steps: Sequence[Step] = STEPS, problem: Problem = PROBLEM, **scorer: Any
) -> tuple[list[float | None], int]:
    async def ask() -> tuple[list[float | None], int]:
        async with open_scorer([ModelConfig(checkpoint, server)], ScorerConfig(**scorer)) as opened:
            found = await opened.score(problem, [steps])
            return [None if score is None else score.correct for score in found.steps[0]], found.tokens

    return asyncio.run(ask())


def answers(text: str, reason: str = "stop") -> Callable[[Body], Answer]:
    return lambda body: completion(text, reason=reason, read=10)


def test_the_request_is_that_of_the_public_script(checkpoint: str, server: StandIn) -> None:
    server.reply = answers("<think>x</think>\n<answer>\nThe response is correct\n</answer>")
    assert scored(checkpoint, config_of(server)) == ([1.0, 1.0, 1.0], 10)
    body = server.asked[-1]
    # As process_verify and process_message make it.
    response = "\n\n".join(step.text for step in STEPS)
    parts = ASKED.format(question="<image>" + PROBLEM.question, response=response).split("<image>")
    system, user = body["messages"]
    assert system == {"role": "system", "content": SYSTEM}
    assert [part["type"] for part in user["content"]] == ["text", "image_url", "text"]
    assert [part["text"] for part in user["content"][::2]] == [part.strip() for part in parts]
    assert base64.b64decode(user["content"][1]["image_url"]["url"].partition(",")[2]) == PROBLEM.images[0]
    assert (body["temperature"], body["max_tokens"], "response_format" in body) == (0, 4096, False)


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("<answer>The response is correct</answer>", []),
        ("<answer>[]</answer>", []),
        ("<think>[</think><answer>\n['3 red', \"it's 4\",]\n</answer>", ["3 red", "it's 4"]),
        (r"<answer>['it\'s', 'a\\b\n', '\d']</answer>", ["it's", "a\\b\n", r"\d"]),
        ("<answer>[3]</answer>", None),
        ("<answer>['a' + 'b']</answer>", None),
        ("<answer>3 is wrong</answer>", None),
        ("<answer>['a']", None),
        ("The response is correct", None),
        ("<answer>['a'</answer>", None),
    ],
)
def test_claims_are_read_strictly(text: str, claims: list[str] | None) -> None:
    assert perceval.claims(text) == claims


@pytest.mark.parametrize(
    ("claims", "wrong"),
    [
        ([], [False, False, False]),
        (["3 red"], [True, False, False]),
        (["discs.\n\nSo 3"], [True, True, False]),  # a claim over two steps
        (["4", "none"], [False, True, False]),  # its first place; another is left out
        (["none"], None),
    ],
)
def test_a_step_with_a_part_of_a_claim_is_wrong(claims: list[str], wrong: list[bool] | None) -> None:
    assert wrong_steps(STEPS, claims) == wrong


def test_what_cannot_be_read_is_no_result(checkpoint: str, server: StandIn) -> None:
    none, config = [None] * 3, config_of(server)
    for text, reason in (
        ("I think so", "stop"),
        ("<answer>['4']</answer>", "length"),
        ("<answer>['no']</answer>", "stop"),
    ):
        server.reply = answers(text, reason)
        assert scored(checkpoint, config)[0] == none
    server.reply = lambda body: (400, "application/json", "{}") if len(body["messages"]) > 1 else completion("yes")
    assert scored(checkpoint, config) == (none, 0)
    server.reply = answers("<answer>['4']</answer>")
    assert scored(checkpoint, config)[0] == [1.0, 0.0, 1.0]
    for text in ("<image>", "a<|im_end|>", " "):
        assert scored(checkpoint, config, [parse_step(text)]) == ([None], 0)


def test_what_it_was_not_trained_for_is_refused(checkpoint: str, server: StandIn, tmp_path: Path) -> None:
    server.reply = answers("<answer>[]</answer>")
    config = config_of(server)
    with pytest.raises(UserError, match="writes its verdict; serve it with vLLM"):
        load(checkpoint)
    with pytest.raises(UserError, match="lists wrong claims; leave out"):
        scored(checkpoint, config, kind="critiques")
    with pytest.raises(ProblemError, match="reads 1 image, not 2"):
        scored(checkpoint, config, problem=dataclasses.replace(PROBLEM, images=PROBLEM.images * 2))
    with pytest.raises(ProblemError, match="has a mark of the prompt"):
        scored(checkpoint, config, problem=dataclasses.replace(PROBLEM, question="<image> how many?"))
    (tmp_path / "prompt_design.py").write_text(f"system = {SYSTEM!r}\nasked = 'another'\n")
    with pytest.raises(UserError, match="has another claude_input_prompt than"):
        scored(checkpoint, config)
