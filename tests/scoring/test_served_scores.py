"""Scores from a server, simulated by a small HTTP server: what is requested, and which answers are not a score."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from eval.parity import Gaps, gaps, main
from eval.step_scores.config import ParityConfig
from tests.conftest import executed, solved
from tests.stand_in import Answer, Body, StandIn, completion, config_of
from tests.stored import pool_record, write_run
from vlprm.errors import UserError
from vlprm.model.checkpoint_config import Head, load_checkpoint_config
from vlprm.model.packing import PackedRow
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.model.reward_model import StepOutput, extra_logits, step_scores
from vlprm.policy.critique import critique_of, critique_text
from vlprm.prompts import critique_template
from vlprm.schema import Problem, Solution, Step, StepScore
from vlprm.scoring import Scored
from vlprm.scoring.config import ScorerConfig
from vlprm.scoring.open import open_scorer, open_served_scorer
from vlprm.scoring.served import ServedScorer, _seen_from
from vlprm.serving.config import ModelConfig, ServerConfig
from vlprm.serving.messages import probe_problem, probe_steps
from vlprm.serving.wire import KeptImages, encoded
from vlprm.steps import parse_step
from vlprm.tasks import TASKS
from vlprm.zoom.policy import ZoomPolicy

PROBLEM = TASKS["fine_print"].problem("test", 0)
STEPS = [executed(step) for step in solved(PROBLEM)]
CROPS = sum(step.region is not None for step in STEPS)


@pytest.fixture(scope="module")
def made(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a new reward model on the tiny backbone."""

    def make(head: Head, reads_surprise: bool = False, outputs: tuple[str, ...] = ()) -> Path:
        folder = tmp_path_factory.mktemp(head)
        checkpoint = load_reward_model(backbone, new_head=head, reads_surprise=reads_surprise, extra_outputs=outputs)
        save_reward_model(checkpoint, folder, checkpoint.config)
        return folder

    return make


def served(folder: Path, server: StandIn, steps: Sequence[Step] = STEPS) -> list[StepScore | None]:
    async def ask() -> list[list[StepScore | None]]:
        scores = ServedScorer(folder, config_of(server))
        try:
            return await scores.score_steps([(PROBLEM, steps)])
        finally:
            await scores.close()

    return asyncio.run(ask())[0]


def row_of(folder: Path, problem: Problem = PROBLEM, steps: Sequence[Step] = STEPS) -> PackedRow:
    return ServedScorer(folder, ServerConfig(("http://localhost/v1",), "prm")).inputs.row(problem, steps)


def pooled(rows: Any) -> Answer:
    return 200, "application/json", json.dumps({"object": "list", "data": [{"index": 0, "data": rows}]})


def listed(read: int | None = None, **log_p: float) -> Answer:
    """A chat completion of one token, with log-probabilities under names such as `id_17`."""
    top = [{"token": name.replace("id_", "token_id:"), "logprob": p, "bytes": None} for name, p in log_p.items()]
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": "x"}}
    choice["logprobs"] = {"content": [{"token": "x", "top_logprobs": top}]}
    return 200, "application/json", json.dumps({"choices": [choice], "usage": {"prompt_tokens": read}})


def test_a_step_heads_scores_stand_at_the_ends_of_its_steps(server: StandIn, made: Callable[..., Path]) -> None:
    folder = made("step")
    row = row_of(folder)
    rows = [[i / 1000, 0.5, 0.5 - i / 1000] for i in range(len(row.ids))]
    server.reply = lambda body: pooled(rows)
    assert served(folder, server) == [StepScore(*rows[end]) for end in row.step_ends]
    (body,) = server.asked
    assert body["task"] == "token_classify"
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant"] * (CROPS + 1)
    assert body["continue_final_message"]
    assert not body["add_generation_prompt"]


def test_a_value_is_read_from_the_softmax_over_all_outputs(server: StandIn, made: Callable[..., Path]) -> None:
    """What a server returns gives the score that the logits give in this process; a row of 0 and 1 gives none."""
    names = ("value", "concentration")
    folder = made("step", outputs=names)
    row = row_of(folder)
    logits_TO = torch.randn(len(row.ids), 5, generator=torch.Generator().manual_seed(0))
    rows = logits_TO.softmax(-1).tolist()
    server.reply = lambda body: pooled(rows)
    whole = StepOutput(logits=logits_TO[None, :, :3], **extra_logits(logits_TO[None], names))
    own = step_scores(whole, "step")[0]
    for mine, found in zip([own[end] for end in row.step_ends], served(folder, server), strict=True):
        assert found is not None
        assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(mine), abs=1e-6)
    rows[row.step_ends[0]] = [1.0, 0.0, 0.0, 0.0, 0.0]
    assert [found is None for found in served(folder, server)] == [k == 0 for k in range(len(STEPS))]
    server.reply = lambda body: pooled([[1.0, 0.0, 0.0]] * len(row.ids))
    assert served(folder, server) == [None] * len(STEPS)


def test_a_pooling_call_declares_tools_where_the_server_looks_for_them(
    server: StandIn, made: Callable[..., Path]
) -> None:
    folder = made("step")
    checkpoint_config = dataclasses.replace(load_checkpoint_config(folder), zoom=ZoomPolicy(form="qwen_tool"))
    checkpoint_config.save(folder)
    server.reply = lambda body: pooled([[1.0, 0.0, 0.0]] * len(row_of(folder).ids))
    assert served(folder, server) == [StepScore(1.0, 0.0, 0.0)] * len(STEPS)
    (body,) = server.asked
    assert body["chat_template_kwargs"] == {"tools": checkpoint_config.zoom.tools}
    assert "tools" not in body


def test_other_tokens_than_ours_are_refused(server: StandIn, made: Callable[..., Path]) -> None:
    """One row too few would shift every score by one token."""
    folder = made("step")
    tokens = len(row_of(folder).ids)
    server.reply = lambda body: pooled([[1.0, 0.0, 0.0]] * (tokens - 1))
    with pytest.raises(ValueError, match=rf"reads {tokens - 1} tokens where .* makes {tokens}; serve that folder"):
        served(folder, server)
    server.reply = lambda body: listed(7)
    with pytest.raises(ValueError, match="reads 7 tokens where"):
        served(made("verdict"), server)


NAN = float("nan")
ODD_ROWS: dict[str, Any] = {
    "embeddings": [0.5, -1.0, 1.5],
    "two labels": [0.5, 0.5],
    "logits": [2.0, 1.0, 0.5],
    "not a number": [NAN, NAN, NAN],
    "no list": 0.5,
    "no numbers": ["a", "b", "c"],
}


@pytest.mark.parametrize("odd", ODD_ROWS)
def test_what_is_no_probability_is_no_score(server: StandIn, made: Callable[..., Path], odd: str) -> None:
    folder = made("step")
    server.reply = lambda body: pooled([ODD_ROWS[odd]] * len(row_of(folder).ids))
    assert served(folder, server) == [None] * len(STEPS)


@pytest.mark.parametrize("head", ["step", "verdict"])
@pytest.mark.parametrize(
    "reply",
    [
        (500, "text/html", "<html>"),
        (200, "application/json", "{"),
        (200, "application/json", '{"data": [{"index": 0}], "choices": [{"index": 0}]}'),
        (200, "application/json", '{"data": [{"index": 0, "data": "AA"}], "choices": [{"index": 0, "logprobs": 0}]}'),
        (200, "application/json", '{"data": [7], "choices": [{"index": 0, "logprobs": {"content": []}}]}'),
    ],
    ids=["broken", "cut", "nothing", "another form", "empty"],
)  # fmt: skip
def test_a_fault_is_no_score(server: StandIn, made: Callable[..., Path], head: Head, reply: Answer) -> None:
    server.reply = lambda body: reply
    folder = made(head)
    assert served(folder, server) == [None] * len(STEPS)
    with pytest.raises(ValueError, match=r"the server http\S+ does not score as 'policy' \(.*\); correct"):
        opened(folder, config_of(server))


def test_a_verdict_is_asked_for_after_each_step_and_compared_with_the_other(
    server: StandIn, made: Callable[..., Path]
) -> None:
    folder = made("verdict")
    row, (right, wrong) = row_of(folder), verdicts(folder)
    lengths = [_seen_from(row, end) for end in row.step_ends]
    assert lengths == sorted(set(lengths))

    def reply(body: Body) -> Answer:
        chances = {f"id_{right}": math.log(0.03), f"id_{wrong}": math.log(0.01), "id_400": -0.01}
        return listed(**chances)

    server.reply = reply
    got = served(folder, server)
    assert [score.correct for score in got if score] == pytest.approx([0.75] * len(STEPS))
    assert len(server.asked) == len(STEPS)
    assert all(body["max_tokens"] == 1 for body in server.asked)
    assert all(body["logprob_token_ids"] == [right, wrong] for body in server.asked)
    assert all(body["messages"][-1]["role"] == "user" for body in server.asked)


def test_a_search_asks_for_what_is_new(server: StandIn, made: Callable[..., Path]) -> None:
    """With a verdict head, each step is asked about once, whatever prefix contains it; after a failure, again."""
    folder = made("verdict")
    right, wrong = verdicts(folder)

    async def grow(log_p: dict[str, float]) -> list[int]:
        scores, asked = ServedScorer(folder, config_of(server)), []
        server.reply = lambda body: listed(**log_p)
        for end in (2, 2, 3):
            before = len(server.asked)
            found = await scores.score(PROBLEM, [STEPS[:end], STEPS[:1]], "a")
            assert [s is not None for s in found.steps[0]] == [bool(log_p)] * end
            asked.append(len(server.asked) - before)
        scores.forget(PROBLEM, "a")
        await scores.score(PROBLEM, [STEPS[:1]], "a")
        await scores.close()
        return [*asked, len(server.asked)]

    assert asyncio.run(grow({f"id_{right}": -0.1, f"id_{wrong}": -2.0})) == [2, 0, 1, 4]
    assert asyncio.run(grow({}))[:3] == [2, 2, 3]


def test_a_verdict_that_is_not_listed_is_no_result_and_not_0(server: StandIn, made: Callable[..., Path]) -> None:
    folder = made("verdict")
    right, wrong = verdicts(folder)
    only_one: list[dict[str, float]] = [{f"id_{right}": -0.1}, {f"id_{wrong}": -0.1}, {"+": -0.1, "-": -3.0}, {}]
    for chances in only_one:
        server.reply = lambda body, chances=chances: listed(**chances)  # type: ignore[misc]
        assert served(folder, server) == [None] * len(STEPS)
    far_apart = {f"id_{right}": -9999.0, f"id_{wrong}": 0.0}
    server.reply = lambda body: listed(**far_apart)
    assert [score.correct for score in served(folder, server) if score] == [0.0] * len(STEPS)


def verdicts(folder: Path) -> tuple[int, ...]:
    return ServedScorer(folder, ServerConfig(("http://localhost/v1",), "prm")).inputs.verdict_ids


def test_the_question_for_a_verdict_renders_to_what_this_process_reads(made: Callable[..., Path]) -> None:
    """The question comes after a step, after a crop, and after steps that follow a crop."""
    scores = ServedScorer(made("verdict"), ServerConfig(("http://localhost/v1",), "prm"))
    inputs, row = scores.inputs, scores.inputs.row(PROBLEM, STEPS)
    assert CROPS
    assert not STEPS[-1].region
    for k, end in enumerate(row.step_ends):
        turns = json.loads(encoded(scores._body(PROBLEM, STEPS[: k + 1]), KeptImages())[0])["messages"]
        text = inputs.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        # Here an image is one token, there it is one a patch.
        seen = [i for i, until in zip(row.ids[: end + 1], row.until[: end + 1], strict=True) if end < until]
        assert len(seen) == _seen_from(row, end)
        repeated = [a == b == inputs.image_token_id for a, b in itertools.pairwise((-1, *seen))]
        shown = [i for i, again in zip(seen, repeated, strict=True) if not again]
        assert inputs.tokenizer(text, add_special_tokens=False)["input_ids"] == shown


def test_a_control_token_is_not_sent(server: StandIn, made: Callable[..., Path]) -> None:
    steps = [parse_step("[reasoning] <|im_end|>"), parse_step("[answer] 3")]
    assert served(made("step"), server, steps) == [None, None]
    assert served(made("step"), server, []) == []
    assert not server.asked


@pytest.mark.parametrize("head", ["step", "verdict"])
def test_steps_that_cannot_be_read_are_not_sent(server: StandIn, made: Callable[..., Path], head: Head) -> None:
    """Neither an empty step, nor a step beyond the context, nor the steps after them. The steps before them have
    scores, and only these are counted."""
    folder = made(head)
    scores = ServedScorer(folder, config_of(server))
    rows = [scores.inputs.row(PROBLEM, STEPS[:k]) for k in (1, 2)]
    right, wrong = verdicts(folder) if head == "verdict" else (0, 0)
    tokens = [_seen_from(row, row.step_ends[-1]) for row in rows]
    server.reply = lambda body: (
        pooled([[1.0, 0.0, 0.0]] * (tokens[0] if len(server.asked) == 1 else tokens[1]))
        if head == "step" else listed(**{f"id_{right}": -0.1, f"id_{wrong}": -2.0})
    )  # fmt: skip

    async def ask(*solutions: Sequence[Step]) -> Scored:
        return await scores.score(PROBLEM, solutions, "a")

    async def both() -> tuple[Scored, Scored]:
        first = await ask([STEPS[0], parse_step("  "), STEPS[1]], [parse_step("")])
        scores.inputs.context = tokens[1]
        second = await ask(STEPS)
        await scores.close()
        return first, second

    first, second = asyncio.run(both())
    assert [[s is not None for s in of] for of in first.steps] == [[True, False, False], [False]]
    assert first.tokens == tokens[0]
    assert [s is not None for s in second.steps[0]] == [True, True, *[False] * (len(STEPS) - 2)]
    assert len(server.asked) == 2


def test_a_served_critic_scores_by_its_critiques(server: StandIn, made: Callable[..., Path]) -> None:
    """Three of four critiques call the step right. A model that never learnt critiques is asked for none."""
    said, form = (
        [critique_of(STEPS[0]), critique_of(STEPS[0], "reasoning", STEPS[1])],
        critique_template("plain_critique@2"),
    )
    right, wrong = (critique_text(one, form) for one in said)
    server.reply = lambda body: completion(*[right, right, wrong, right][: body.get("n", 1)])

    folder = made("step")

    async def ask() -> Scored:
        asked = ScorerConfig("critiques", critiques=4)
        async with open_scorer([ModelConfig(str(folder), config_of(server))], asked) as scorer:
            return await scorer.score(PROBLEM, [STEPS[:1]])

    with pytest.raises(UserError, match=r"never learnt to write critiques; give a reward model .* loss\.critique: 1"):
        asyncio.run(ask())
    assert not server.asked
    dataclasses.replace(load_checkpoint_config(folder), provenance={"critiques": True}).save(folder)
    assert [s and s.correct for s in asyncio.run(ask()).steps[0]] == [0.75]


def test_a_server_is_not_asked_for_what_it_cannot_give() -> None:
    async def enter() -> None:
        model = ModelConfig("a", ServerConfig(("http://localhost/v1",), "prm"))
        async with open_scorer([model], ScorerConfig("whole")):
            pass

    with pytest.raises(ValueError, match=r"servers score steps only; leave out server\.base_urls"):
        asyncio.run(enter())


def opened(folder: Path, config: ServerConfig) -> None:
    async def enter() -> None:
        async with open_served_scorer(ModelConfig(str(folder), config)):
            pass

    asyncio.run(enter())


@pytest.mark.parametrize(
    ("version", "refused"),
    [("0.11.2", True), ("0.9.1.post2", True), ("0.12.0", False), ("0.32.0", False), ("1.0.0rc1", False),
     ("0.1.dev1+g55307", False), (None, False)],
)  # fmt: skip
def test_a_vllm_that_pools_too_few_tokens_is_refused(
    version: str | None, refused: bool, server: StandIn, made: Callable[..., Path]
) -> None:
    server.version = version
    said = rf"runs vLLM {version}, which leaves out .* with vLLM 0\.12 or later" if refused else "does not score as"
    with pytest.raises(ValueError, match=said):
        opened(made("step"), config_of(server))
    assert bool(server.asked) != refused


def test_a_verdict_head_needs_no_pooling_of_the_server(server: StandIn, made: Callable[..., Path]) -> None:
    server.version = "0.11.0"
    with pytest.raises(ValueError, match="does not score as"):
        opened(made("verdict"), config_of(server))


def test_what_cannot_be_served_is_refused(server: StandIn, made: Callable[..., Path], backbone: Path) -> None:
    with pytest.raises(ValueError, match="has a head that reads surprise, which servers do not compute; score it"):
        opened(made("step", reads_surprise=True), config_of(server))
    with pytest.raises(ValueError, match="has no reward head"):
        opened(backbone, config_of(server))
    with pytest.raises(ValueError, match=r"needs server\.base_urls and server\.model"):
        opened(made("step"), ServerConfig())
    assert not server.asked


def test_a_saved_step_head_says_what_its_outputs_are(made: Callable[..., Path]) -> None:
    """A server builds the head from these labels; without them it would give the head two outputs."""
    config = json.loads((made("step") / "config.json").read_text())
    assert config["architectures"] == ["Qwen3VLForTokenClassification"]
    assert config["id2label"] == {"0": "correct", "1": "perception", "2": "reasoning"}


def test_gaps_are_of_steps_that_both_ways_score() -> None:
    own = [[StepScore(0.5, 0.5, 0.0), StepScore(0.2, 0.8, 0.0)], [StepScore(0.1, 0.9, 0.0)], []]
    other: list[list[StepScore | None]] = [[StepScore(0.5, 0.5, 0.0), None], [StepScore(0.4, 0.6, 0.0)], []]
    assert gaps(own, other) == Gaps(pytest.approx(0.3), pytest.approx(0.15), 2, 1)
    with pytest.raises(ValueError, match="the servers scored none of the 3 steps"):
        gaps(own, [[None, None], [None], []])


def test_a_gap_above_the_bound_ends_the_command(
    server: StandIn, made: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new head gives each output a probability of a third."""
    folder = made("step")
    write_run(tmp_path / "pools", [pool_record(0, PROBLEM, [Solution(PROBLEM.id, tuple(STEPS), None, "answer", 1)])])
    candidate = len(row_of(folder).ids)
    probed = {2 * len(steps): tokens for steps, tokens in probes_of(folder)}
    config = ParityConfig(ModelConfig(str(folder), config_of(server), "cpu"), tmp_path / "pools")

    def reply(body: Body, correct: float) -> Answer:
        is_probe = body["messages"][-1]["content"] == "2"
        return pooled([[correct, 1 - correct, 0.0]] * (probed[len(body["messages"])] if is_probe else candidate))

    server.reply = lambda body: reply(body, 1 / 3)
    main(config)
    assert f"over {len(STEPS)} steps; 0 steps without a result" in capsys.readouterr().out
    server.reply = lambda body: reply(body, 0.35)
    with pytest.raises(ValueError, match=r"the largest gap, 1\.67e-02, is above the bound of 0\.0001; serve"):
        main(config)
    main(dataclasses.replace(config, bound=0.1))


def probes_of(folder: Path) -> list[tuple[tuple[Step, ...], int]]:
    """The solutions that test a server at the start, and the number of their tokens."""
    inputs = ServedScorer(folder, ServerConfig(("http://localhost/v1",), "prm")).inputs
    problem = probe_problem(inputs)
    return [(steps, len(inputs.row(problem, steps).ids)) for steps in probe_steps(inputs, problem)]


def test_a_server_that_shows_crops_otherwise_is_refused(server: StandIn, made: Callable[..., Path]) -> None:
    folder = made("step")
    (_, plain), (_, zooms) = probes_of(folder)
    lengths = {2: plain, 4: zooms}
    server.reply = lambda body: pooled([[0.5, 0.5, 0.0]] * lengths[len(body["messages"])])
    opened(folder, config_of(server))
    lengths[4] += 2
    with pytest.raises(ValueError, match=rf"reads {zooms + 2} .* makes {zooms}; its chat template shows a crop"):
        opened(folder, config_of(server))
