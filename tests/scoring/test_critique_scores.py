"""Rewards from critiques: the share of sampled ones, and the probability of the verdict."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
import torch

from tests.stand_in import Answer, Body, StandIn, completion, config_of
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import Checkpoint, load_policy
from vlprm.policy import Continuation, Request
from vlprm.policy.critique import critique_of, critique_text
from vlprm.policy.local import LocalPolicy
from vlprm.policy.served import ServedPolicy
from vlprm.prompts import CritiqueTemplate
from vlprm.schema import Problem, Region
from vlprm.scoring import Scored
from vlprm.scoring.config import ScorerConfig
from vlprm.scoring.critiques import CritiqueScorer
from vlprm.scoring.open import open_scorer
from vlprm.serving.config import ModelConfig
from vlprm.steps import parse_step
from vlprm.zoom.policy import ZoomPolicy

FIRST, LAST = CritiqueTemplate("Right?", verdict_last=False, max_tokens=90), CritiqueTemplate("Think.", True, 90)
STEPS = [parse_step("[perception] row 1: red"), parse_step("[answer] 1")]
SURE, UNSURE = "I see it.", "I do not see it."
SHORT, STEP, INSTEAD = Problem("p", "t", "?", (), None, "word"), STEPS[1], parse_step("[answer] 2")


class Thinker:
    """A critic with set logits: after `SURE` it calls a step right rather than wrong by e^2 to 1, after `UNSURE` by
    e^-1 to 1, and without reasons by e^0.5 to 1. It writes the given reasons in turn; None: no verdict."""

    dialect, zoom = "relative_1000", ZoomPolicy()

    def __init__(self, *reasons: str | None) -> None:
        self.reasons = reasons
        self.asked: list[tuple[int, int, tuple[str, str] | None]] = []

    async def sample(self, request: Request) -> list[Continuation]:
        self.asked.append((len(request.steps), request.n, request.between))
        if request.between is None:
            said = critique_of(request.steps[-1])
            texts = [
                critique_text(said, LAST) if r else "I think and think" for r in self.reasons
            ]  # the verdict that is written does not matter
            return [
                Continuation(f"{r}\n{text}" if r else text, 5, bool(r), read=7 * (i == 0))
                for i, (r, text) in enumerate(zip(self.reasons, texts, strict=True))
            ]
        right, wrong = request.between
        assert right.endswith("right") or right == "right\nintent"
        assert wrong.endswith("wrong: ") or wrong == "(wrong: ["
        logit = 2.0 if right.startswith(SURE) else -1.0 if right.startswith(UNSURE) else 0.5
        return [Continuation("", 0, True, read=9, probability=logistic(logit))]

    def seen_size(self, problem: Problem, shown: int | Region = 0) -> tuple[int, int]:
        raise AssertionError

    def crop_tokens(self, problem: Problem, region: Region) -> int:
        raise AssertionError


def logistic(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def rewards(scored: Scored) -> list[float | None]:
    return [score and score.correct for score in scored.steps[0]]


def of(critic: Thinker, template: CritiqueTemplate, problem: Problem, samples: int) -> Scored:
    return asyncio.run(CritiqueScorer(critic, template, samples, "probability").score(problem, [STEPS]))


def test_the_probability_of_the_verdict_is_averaged_over_reasons(problems: list[Problem]) -> None:
    """A critique that ends before its verdict is left out, not counted as wrong. What a step is worth includes the
    steps before it."""
    critic = Thinker(SURE, UNSURE, None, SURE)
    found = of(critic, LAST, problems[0], 4)
    mean = (2 * logistic(2.0) + logistic(-1.0)) / 3
    assert rewards(found) == pytest.approx([mean, mean * mean])
    assert found.tokens == 2 * (7 + 4 * 5 + 3 * 9)
    assert rewards(of(Thinker(None), LAST, problems[0], 1)) == [None, None]


def test_a_verdict_that_comes_first_needs_one_pass(problems: list[Problem]) -> None:
    critic = Thinker()
    found = of(critic, FIRST, problems[0], 8)
    assert rewards(found) == pytest.approx([logistic(0.5), logistic(0.5) ** 2])
    assert [(n, between) for _, n, between in critic.asked] == [(1, ("right\nintent", "(wrong: ["))] * 2
    assert found.tokens == 2 * 9


def test_only_critiques_have_a_decision() -> None:
    async def enter() -> None:
        async with open_scorer([ModelConfig("none")], ScorerConfig(decision="probability")):
            pass

    with pytest.raises(ValueError, match=r"scorer\.kind steps takes no scorer\.decision; leave it out"):
        asyncio.run(enter())


# --- a real model


@pytest.fixture(scope="module")
def critic(backbone: Path) -> LocalPolicy:
    """A tiny random Qwen3-VL that learnt to be of two minds about a step, and more so after some reasons."""
    checkpoint = load_policy(backbone)
    right, wrong = critique_of(STEP), critique_of(STEP, "perception", INSTEAD)
    texts = [
        *[(FIRST, critique_text(said, FIRST), weight) for said, weight in ((right, 0.7), (wrong, 0.3))],
        *[
            (LAST, f"{reason}\n{why}\nverdict: {verdict}", weight)
            for reason, share in ((SURE, 0.9), (UNSURE, 0.4))
            for verdict, weight in (("right", share / 2), (f"wrong: {INSTEAD.text}", (1 - share) / 2))
            for why in [critique_text(right, LAST).split("\n")[0]]
        ],
    ]
    teach(checkpoint, texts)
    return LocalPolicy(checkpoint)


def teach(checkpoint: Checkpoint, texts: Sequence[tuple[CritiqueTemplate, str, float]]) -> None:
    """Train on each text, with its weight, as the answer to its template's question."""
    inputs, model = checkpoint.inputs, checkpoint.model
    rows, starts = [], []
    for template, text, _ in texts:
        ids = (*inputs.text.encode(text), inputs.end_of_turn)
        rows.append(inputs.asked_row(SHORT, [STEP], template.question, ids))
        starts.append(len(rows[-1].ids) - len(ids))
    batch = inputs.batch(rows)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(150):
        log_p_BTV = model(**batch).logits.log_softmax(-1)
        nats = [
            -log_p_BTV[b, start - 1 : len(row.ids) - 1].gather(1, torch.tensor(row.ids[start:])[:, None]).sum()
            for b, (row, start) in enumerate(zip(rows, starts, strict=True))
        ]
        loss = sum(weight * of_text for (_, _, weight), of_text in zip(texts, nats, strict=True))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()


@pytest.mark.parametrize("template", [FIRST, LAST])
def test_the_share_of_many_critiques_is_the_probability(critic: LocalPolicy, template: CritiqueTemplate) -> None:
    """Where nearly all critiques can be read."""
    many = 200

    def scored(decision: Literal["share", "probability"]) -> float:
        scorer = CritiqueScorer(critic, template, many, decision, temperature=1.0)
        (found,) = asyncio.run(scorer.score(SHORT, [[STEP]])).steps[0]
        assert found is not None
        return found.correct

    share, probability = scored("share"), scored("probability")
    error = math.sqrt(probability * (1 - probability) / many)
    assert 0.4 < probability < 0.9
    assert abs(share - probability) < 3 * error


def test_a_probability_in_a_batch_is_that_of_its_text_alone(critic: LocalPolicy) -> None:
    """It is normalised over the two ids where the texts part, and other requests in the batch change nothing."""
    texts = ("right\nintent", "(wrong: [")
    asked = Request(SHORT, (STEP,), 1, "k", 0, asked=FIRST.question, between=texts, max_tokens=1)
    written = Request(SHORT, (STEP,), 3, "w", 0, max_tokens=9, asked=FIRST.question)

    async def both() -> list[list[Continuation]]:
        return list(await asyncio.gather(critic.sample(written), critic.sample(asked)))

    (_, (found,)), inputs = asyncio.run(both()), critic.checkpoint.inputs
    begun, (first, second) = inputs.text.parting(texts)
    row = inputs.asked_row(SHORT, [STEP], FIRST.question, begun)
    logits_V = critic.checkpoint.model(**inputs.batch([row])).logits[0, -1]
    assert found.probability == pytest.approx(logits_V[[first, second]].softmax(0)[0].item(), rel=1e-4)
    assert (found.text, found.read) == ("", len(row.ids))
    assert inputs.tokenizer.decode([*begun, first]) in texts[0]


def test_a_server_is_asked_where_the_verdict_begins(server: StandIn, inputs: InputBuilder) -> None:
    """It reads what this process reads; a server that reads other tokens gives no result."""
    reasons = f"{SURE}\n{critique_text(critique_of(STEP), LAST)}"
    begun, ids = inputs.text.parting((reasons, reasons.removesuffix("right") + "wrong: "))
    row = inputs.asked_row(SHORT, [STEP], LAST.question, begun)
    read = [len(row.ids)]

    def reply(body: Body) -> Answer:
        if "logprob_token_ids" not in body:
            return completion(reasons, read=9)
        assert body["logprob_token_ids"] == list(ids)
        form = {"continue_final_message": True, "add_generation_prompt": False}
        assert {name: body[name] for name in form} == form
        text = inputs.processor.apply_chat_template(body["messages"], tokenize=False, **form)
        assert tuple(inputs.tokenizer(text, add_special_tokens=False)["input_ids"]) == row.ids
        top = [{"token": f"token_id:{i}", "logprob": p} for i, p in zip(ids, (-1.0, -3.0), strict=True)]
        choice = {
            "index": 0,
            "message": {"content": "x"},
            "logprobs": {"content": [{"token": "x", "top_logprobs": top}]},
        }
        return 200, "application/json", json.dumps({"choices": [choice], "usage": {"prompt_tokens": read[0]}})

    async def ask() -> Scored:
        policy = ServedPolicy(inputs, config_of(server))
        found = await CritiqueScorer(policy, LAST, 1, "probability").score(SHORT, [[STEP]])
        await policy.close()
        return found

    server.reply = reply
    assert rewards(asyncio.run(ask())) == [pytest.approx(logistic(2.0))]
    read[0] += 1
    assert rewards(asyncio.run(ask())) == [None]
