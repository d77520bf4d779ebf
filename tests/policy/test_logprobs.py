"""Log-probabilities of sampled ids are those that the model gives them again, in the distribution they came from."""

import asyncio
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from tests.stand_in import Answer, StandIn, completion, config_of
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import Checkpoint, load_policy
from vlprm.model.packing import PackedRow
from vlprm.policy import Continuation, Request, Turn
from vlprm.policy.local import LocalPolicy, generate
from vlprm.policy.rollout import Rollout, rollouts_with_turns
from vlprm.policy.served import ServedPolicy
from vlprm.schema import Problem
from vlprm.steps import parse_step
from vlprm.tasks import TASKS

ZOOMS = ('[zoom] {"bbox_2d": [0, 0, 500, 500]}', '[zoom] {"bbox_2d": [250, 250, 750, 750]}')


@pytest.fixture(scope="module")
def problem() -> Problem:
    return TASKS["fine_print"].problem("train", 0)


def recomputed(policy: Checkpoint, row: PackedRow, ids: Sequence[int], temperature: float) -> list[float]:
    """Log-probabilities of ids that follow the row, from one pass over all of them."""
    following = torch.arange(1, len(ids) + 1) + row.positions.max()
    whole = dataclasses.replace(
        row,
        ids=(*row.ids, *ids),
        image_mask=(*row.image_mask, *[False] * len(ids)),
        until=(len(row.ids) + len(ids),) * (len(row.ids) + len(ids)),
        positions=torch.cat([row.positions, following.expand(len(row.positions), -1)], dim=1),
    )
    with torch.no_grad():
        logits_TV = policy.model(**policy.inputs.batch([whole])).logits[0, len(row.ids) - 1 : -1]
    logits_TV[:, list(policy.inputs.banned_ids)] = -torch.inf
    return (logits_TV / temperature).log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].tolist()


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
def test_they_are_what_the_model_gives_again(
    tiny_backbone: Callable[[str], Path], problems: list[Problem], family: str, temperature: float
) -> None:
    policy = load_policy(tiny_backbone(family))
    policy.model.get_output_embeddings().weight.data *= 20  # far from uniform
    steps = (parse_step("[perception] row 1: red"),)
    asked = [Request(p, steps[:i], 2, p.id, 3, temperature, 12, logprobs=True) for i, p in enumerate(problems[:2])]
    for request, written in zip(asked, generate(policy, asked), strict=True):
        row = policy.inputs.row(request.problem, request.steps)
        for c in written:
            assert len(c.logprobs) == len(c.ids) == c.tokens > 0
            assert c.logprobs == pytest.approx(recomputed(policy, row, c.ids, temperature), abs=1e-5)


def test_only_who_asks_gets_them(tiny_backbone: Callable[[str], Path], problems: list[Problem]) -> None:
    policy = load_policy(tiny_backbone("qwen3_vl"))
    without = [Request(p, (), 2, p.id, 3, max_tokens=8) for p in problems[:2]]
    mixed = [without[0], dataclasses.replace(without[1], logprobs=True)]
    (plain, asked), expected = generate(policy, mixed), generate(policy, without)
    assert plain == expected[0]
    assert [dataclasses.replace(c, logprobs=()) for c in asked] == expected[1]
    assert all(c.logprobs for c in asked)


class Forced:
    """Makes a policy prefer the ids of texts, one text per call of the engine."""

    def __init__(self, policy: Checkpoint, *texts: str) -> None:
        encode = policy.inputs.text.encode
        self.ids = [[*encode(text), policy.inputs.end_of_turn] for text in texts]
        self.turn = self.at = -1
        self.inputs = policy.inputs

    def hook(self, module: object, args: object, logits_BTV: torch.Tensor) -> torch.Tensor:
        """The model's logits with a bonus on the next id of the script."""
        if logits_BTV.requires_grad or self.turn >= len(self.ids):
            return logits_BTV
        self.at += 1
        bonus = torch.zeros(logits_BTV.shape[-1])
        bonus[self.ids[self.turn][self.at]] = 30.0
        return logits_BTV + bonus


def rollout_of(policy: Checkpoint, problem: Problem, texts: Sequence[str], **asked: object) -> Rollout:
    """A rollout of a policy whose logits prefer these texts, one per turn."""
    forced, head = Forced(policy, *texts), policy.model.get_output_embeddings()

    class Engine(LocalPolicy):
        async def sample(self, request: Request):  # type: ignore[no-untyped-def]
            forced.turn, forced.at = forced.turn + 1, -1
            return await super().sample(request)

    handle = head.register_forward_hook(forced.hook)
    try:
        request = Request(problem, (), 1, "k", 0, max_tokens=60, logprobs=True)
        (rollout,) = asyncio.run(rollouts_with_turns(Engine(policy), dataclasses.replace(request, **asked)))  # type: ignore[arg-type]
    finally:
        handle.remove()
    return rollout


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
def test_turns_with_two_crops(tiny_backbone: Callable[[str], Path], problem: Problem, family: str) -> None:
    """In Qwen2.5's tokenizer one id ends a step and begins the break after it."""
    policy = load_policy(tiny_backbone(family))
    texts = (f"[perception] a.\n\n{ZOOMS[0]}", f"{ZOOMS[1]}\n\n[answer] blind", "[perception] b.\n\n[answer] bars")
    rollout = rollout_of(policy, problem, texts)
    assert (rollout.solution.answer, len(rollout.solution.steps)) == ("bars", 5)
    assert [(turn.steps, turn.stop) for turn in rollout.turns] == [(2, "end"), (1, "zoom"), (2, "end")]
    assert sum(len(turn.ids) for turn in rollout.turns) == rollout.solution.tokens
    done = 0
    for k, (turn, text) in enumerate(zip(rollout.turns, texts, strict=True)):
        assert policy.inputs.tokenizer.decode(turn.ids[:-1]) == text
        row = policy.inputs.sampled_row(
            problem, rollout.solution.steps[:done], [(t.steps, t.ids) for t in rollout.turns[:k]]
        )
        assert len(row.images) == 1 + k
        done += turn.steps
        forced = Forced(policy, text)
        handle = policy.model.get_output_embeddings().register_forward_hook(
            lambda module, args, logits_BTV, forced=forced, row=row: _with_bonus(logits_BTV, forced, len(row.ids))
        )
        expected = recomputed(policy, row, turn.ids, 1.0)
        handle.remove()
        assert turn.logprobs == pytest.approx(expected, abs=1e-5)


def _with_bonus(logits_BTV: torch.Tensor, forced: Forced, start: int) -> torch.Tensor:
    bonus_TV = torch.zeros(logits_BTV.shape[1:])
    for i, token in enumerate(forced.ids[0]):
        bonus_TV[start - 1 + i, token] = 30.0
    return logits_BTV + bonus_TV


def test_a_turn_that_was_cut_off(tiny_backbone: Callable[[str], Path], problem: Problem) -> None:
    policy = load_policy(tiny_backbone("qwen3_vl"))
    rollout = rollout_of(policy, problem, ("[perception] a.\n\n[perception] bcdefghijklmnop",), max_tokens=16)
    (turn,) = rollout.turns
    assert (turn.steps, turn.stop, rollout.solution.stop) == (1, "length", "length")
    assert len(turn.ids) == len(turn.logprobs) == 16


# --- served


def with_tokens(answer: Answer, read: int, **fields: object) -> Answer:
    """The answer with the fields of tokens that vLLM gives, if asked, in each choice."""
    status, kind, text = answer
    body = json.loads(text)
    for choice in body["choices"]:
        choice |= fields
    return status, kind, json.dumps({**body, "usage": {"prompt_tokens": read}})


def served(server: StandIn, inputs: InputBuilder, request: Request) -> Continuation:
    async def asked() -> list[Continuation]:
        engine = ServedPolicy(inputs, config_of(server))
        try:
            return await engine.sample(request)
        finally:
            await engine.close()

    (continuation,) = asyncio.run(asked())
    return continuation


def test_a_server_gives_ids_with_log_probabilities(
    server: StandIn, inputs: InputBuilder, problems: list[Problem]
) -> None:
    request = Request(problems[0], (), 1, "k", 0, logprobs=True)
    ids, read = inputs.tokenizer("[answer] 3")["input_ids"], len(inputs.row(problems[0], ()).ids)
    given = [{"token": "?", "logprob": -0.5 * i} for i in range(len(ids))]
    whole = {"token_ids": ids, "logprobs": {"content": given}}

    def answer(read: int = read, **fields: object) -> Continuation:
        server.reply = lambda body: with_tokens(completion("[answer] 3"), read, **(whole | fields))
        return served(server, inputs, request)

    known = answer()
    assert (known.ids, known.logprobs) == (tuple(ids), tuple(-0.5 * i for i in range(len(ids))))
    assert (server.asked[-1]["logprobs"], server.asked[-1]["return_token_ids"]) == (True, True)
    for lacking in ({"token_ids": None}, {"token_ids": ids[:-1]}, {"logprobs": None}, {"logprobs": {"content": None}}):
        assert (answer(**lacking).ids, answer(**lacking).logprobs, answer(**lacking).text) == ((), (), "[answer] 3")
    assert answer(read=read + 1).ids == (), "the server read other ids than those that a policy is trained on"
    request = dataclasses.replace(request, logprobs=False)
    assert answer().ids == answer().logprobs == ()
    assert not {"logprobs", "return_token_ids"} & set(server.asked[-1])


@pytest.mark.parametrize("question", ["", "Is it right?"])
def test_a_server_gives_ids_of_critiques(
    server: StandIn, inputs: InputBuilder, problems: list[Problem], question: str
) -> None:
    """Only if it read the steps and the question as they are trained."""
    steps = (parse_step("[reasoning] 1 + 1 = 3"),)
    request = Request(problems[0], steps, 1, "k", 0, logprobs=True, asked=question)
    read = len(inputs.asked_row(problems[0], steps, question).ids)
    fields = {"token_ids": [5], "logprobs": {"content": [{"logprob": -1.0}]}}
    for more, expected in ((0, (5,)), (1, ())):
        server.reply = lambda body, more=more: with_tokens(completion("right"), read + more, **fields)
        assert served(server, inputs, request).ids == expected


def test_ids_after_others_than_the_sampled_ones_are_not_taken(
    server: StandIn, inputs: InputBuilder, problems: list[Problem]
) -> None:
    """A server tokenizes the text again, which may give other ids, and as many of them."""
    steps = (dataclasses.replace(parse_step(ZOOMS[0]), told="no"),)
    own = inputs.text.encode(ZOOMS[0])
    spelt = tuple(inputs.text.encode(c)[0] for c in ZOOMS[0])
    assert len(spelt) > len(own)
    fields = {"token_ids": [5], "logprobs": {"content": [{"logprob": -1.0}]}}
    for ids, expected in ((own, (5,)), (spelt, ())):
        read = len(inputs.sampled_row(problems[0], steps, [(1, ids)]).ids)
        server.reply = lambda body, read=read: with_tokens(completion("[answer] 3"), read, **fields)
        request = Request(problems[0], steps, 1, "k", 0, logprobs=True, sampled=(Turn(1, ids),))
        assert served(server, inputs, request).ids == expected
