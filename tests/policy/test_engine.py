"""The in-process policy: random numbers belong to a row, the cache changes nothing, and placeholders are never
sampled."""

import asyncio
import dataclasses
from pathlib import Path

import pytest
import torch

from vlprm.model.loading import Checkpoint, load_policy
from vlprm.policy import Request
from vlprm.policy.local import LocalPolicy, draw, generate
from vlprm.policy.rollout import rollouts
from vlprm.schema import Problem
from vlprm.steps import parse_step

PREFIX = (parse_step("[perception] row 1: red none blue"), parse_step("[perception] row 2: red"))


@pytest.fixture(scope="module")
def policy(backbone: Path) -> Checkpoint:
    return load_policy(backbone)


def request(problem: Problem, n: int = 2, **changes: object) -> Request:
    return dataclasses.replace(Request(problem, (), n, problem.id, seed=5, max_tokens=12), **changes)  # type: ignore[arg-type]


def test_a_request_gives_the_same_texts_in_any_batch(policy: Checkpoint, problems: list[Problem]) -> None:
    requests = [request(p, n=3, steps=PREFIX[: i % 3]) for i, p in enumerate(problems[:6])]
    together = generate(policy, requests)
    assert [generate(policy, [r])[0] for r in requests] == together
    assert generate(policy, requests[::-1])[::-1] == together
    other_seed = [dataclasses.replace(r, seed=6) for r in requests]
    assert generate(policy, other_seed) != together


def test_the_cached_decoding_is_the_greedy_path_of_the_full_model(policy: Checkpoint, problems: list[Problem]) -> None:
    requests = [request(problems[0], 1, temperature=0.0, steps=PREFIX), request(problems[4], 1, temperature=0.0)]
    for r, (got,) in zip(requests, generate(policy, requests), strict=True):
        ids = list(policy.inputs.row(r.problem, r.steps).ids)
        row = policy.inputs.row(r.problem, r.steps)
        for _ in range(got.tokens):
            batch = policy.inputs.batch([row])
            logits = policy.model(**batch).logits[0, -1]
            logits[list(policy.inputs.banned_ids)] = -torch.inf
            ids.append(int(logits.argmax()))
            step = (*row.positions[:, -1:].max(dim=0).values.tolist(),)
            row = dataclasses.replace(
                row,
                ids=tuple(ids),
                image_mask=(*row.image_mask, False),
                until=(len(ids),) * len(ids),
                positions=torch.cat([row.positions, torch.full((3, 1), step[0] + 1)], dim=1),
            )
        end = policy.inputs.end_of_turn
        text = policy.inputs.tokenizer.decode([i for i in ids[-got.tokens :] if i != end])
        assert text.removeprefix("\n\n" if r.steps else "") == got.text


def test_placeholders_are_banned(policy: Checkpoint, problems: list[Problem]) -> None:
    """Even if the model gives all probability to them."""
    head = policy.model.lm_head
    banned = list(policy.inputs.banned_ids)
    bias = torch.zeros(head.weight.shape[0])
    bias[banned] = 1e4
    hook = head.register_forward_hook(lambda module, args, output: output + bias)
    try:
        (got,) = generate(policy, [request(problems[0], 4)])
    finally:
        hook.remove()
    assert not any("<|image_pad|>" in c.text or "<|vision_start|>" in c.text for c in got)


def test_what_is_drawn_has_a_probability() -> None:
    """The rounded sum of these probabilities is below 1, and a uniform number can round up to 1."""
    short = torch.tensor([[1 / 82] * 82 + [0.0] * 3])
    assert short.cumsum(-1)[0, -1] < 1
    assert draw(short, torch.tensor([1.0])).item() == 81
    shares = torch.tensor([0.5, 0.0, 0.25, 0.25, 0.0]).expand(5, -1)
    assert draw(shares, torch.tensor([0.01, 0.49, 0.51, 0.74, 0.76])).tolist() == [0, 0, 2, 2, 3]


def test_what_does_not_fit_into_the_context_fails_alone(backbone: Path, problems: list[Problem]) -> None:
    checkpoint = load_policy(backbone)
    short, long = Request(problems[0], (), 1, "a", 0, max_tokens=5), Request(problems[0], (), 2, "b", 0, max_tokens=6)
    checkpoint.inputs.context = len(checkpoint.inputs.row(problems[0], ()).ids) + 5
    written, refused = generate(checkpoint, [short, long])
    assert not written[0].failure
    assert [c.failure for c in refused] == ["context", "context"]
    assert [c.failure for c in generate(checkpoint, [long])[0]] == ["context", "context"]


def test_requests_of_many_coroutines_share_batches(policy: Checkpoint, problems: list[Problem], monkeypatch) -> None:  # type: ignore[no-untyped-def]
    sizes = []

    def counting(checkpoint, requests, kept):  # type: ignore[no-untyped-def]
        sizes.append(len(requests))
        return generate(checkpoint, requests, kept)

    monkeypatch.setattr("vlprm.policy.local.generate", counting)
    engine = LocalPolicy(policy)

    async def all_at_once() -> None:
        await asyncio.gather(*(rollouts(engine, request(p)) for p in problems[:8]))

    asyncio.run(all_at_once())
    assert sizes[0] == 8


def test_a_cut_off_solution_is_no_result(policy: Checkpoint, problems: list[Problem]) -> None:
    solutions = asyncio.run(rollouts(LocalPolicy(policy), request(problems[0], n=4, max_tokens=3)))
    assert all(s.answer is None and s.stop in ("length", "no_answer", "bad_json") for s in solutions)
    assert all(s.tokens <= 3 for s in solutions)


def test_a_failure_reaches_who_asked_and_nobody_else(policy: Checkpoint, problems: list[Problem]) -> None:
    broken = dataclasses.replace(problems[0], images=(b"not an image",))
    asked = [request(p) for p in (*problems[:3], broken, *problems[3:5])]

    async def all_at_once() -> list[object]:
        engine = LocalPolicy(policy)
        return await asyncio.gather(*(engine.sample(r) for r in asked), return_exceptions=True)

    answers = asyncio.run(all_at_once())
    failure = answers.pop(3)
    assert isinstance(failure, ValueError)
    assert "cannot be read" in str(failure)
    assert answers == [generate(policy, [r])[0] for r in asked if r.problem is not broken]


def test_every_end_token_of_the_generation_config_ends_a_text(
    policy: Checkpoint, problems: list[Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Qwen's configs list the end of a turn and the end of a document."""
    greedy = request(problems[0], 1, temperature=0.0)
    ((whole,),) = generate(policy, [greedy])
    assert len(whole.ids) > 4
    document_end = whole.ids[3]
    first = whole.ids.index(document_end)
    monkeypatch.setattr(policy.model.generation_config, "eos_token_id", [policy.inputs.end_of_turn, document_end])
    ((cut,),) = generate(policy, [greedy])
    assert (cut.ids, cut.ended) == (whole.ids[: first + 1], True)
    assert cut.text == policy.inputs.tokenizer.decode(whole.ids[:first])
