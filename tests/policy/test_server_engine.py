"""The policy for servers, against a small HTTP server that misbehaves on demand: a failed call does not affect the
others, and no failure becomes text."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
import itertools
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import view_of
from tests.stand_in import KEY, Answer, Body, StandIn, as_asked, completion, config_of, open_on
from vlprm.images import crop, open_image
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.inputs import InputBuilder
from vlprm.policy import Continuation, Request
from vlprm.policy.open import folders_of
from vlprm.policy.rollout import FAILURES, rollouts
from vlprm.policy.served import ServedPolicy
from vlprm.prompts import critique_template
from vlprm.schema import Problem, Step
from vlprm.scoring.open import critique_template_of
from vlprm.serving import client as servers_module
from vlprm.serving.client import FAILURES_IN_A_ROW
from vlprm.serving.config import ModelConfig, ServerConfig
from vlprm.serving.messages import messages, probe_problem, probe_steps
from vlprm.steps import parse_step
from vlprm.zoom.execute import execute_zoom
from vlprm.zoom.policy import ZoomPolicy


def ask(inputs: InputBuilder, config: ServerConfig, *requests: Request) -> list[Any]:
    async def all_at_once() -> list[Any]:
        engine = ServedPolicy(inputs, config)
        try:
            return await asyncio.gather(*(engine.sample(r) for r in requests), return_exceptions=True)
        finally:
            await engine.close()

    return asyncio.run(all_at_once())


def request(problem: Problem, n: int = 2, **changes: Any) -> Request:
    return dataclasses.replace(Request(problem, (), n, problem.id, seed=5), **changes)


def zoomed(problem: Problem) -> Step:
    size = open_image(problem.images[0]).size
    step = execute_zoom(parse_step('[zoom] {"bbox_2d": [100, 200, 600, 700]}'), "relative_1000", [view_of(size)])
    assert isinstance(step, Step)
    return step


def test_an_answer_is_taken_to_the_letter(server: StandIn, inputs: InputBuilder, problems: list[Problem]) -> None:
    server.reply = lambda body: completion("\n\n[answer] 3", "\n\n[answer] 4 \n", reason="stop")
    prefix = (parse_step("[perception] row 1: red"),)
    (fresh,), (after,) = (ask(inputs, config_of(server), request(problems[0], steps=s)) for s in ((), prefix))
    assert [c.text for c in fresh] == ["\n\n[answer] 3", "\n\n[answer] 4 \n"]
    assert [c.text for c in after] == ["[answer] 3", "[answer] 4 \n"]  # the break belongs to neither step
    assert all(c.ended and not c.failure for c in after)
    ids = inputs.tokenizer("\n\n[answer] 3")["input_ids"]
    assert after[0].tokens == len(ids) + 1
    server.reply = lambda body: completion("[answer] 3", "[ans", reason="length")
    assert not any(c.ended or c.failure for c in ask(inputs, config_of(server), request(problems[0]))[0])


def stopped(text: str, **fields: Any) -> Answer:
    """An answer whose choice has further fields, in which servers say what stopped it."""
    status, kind, body = completion(text)
    whole = json.loads(body)
    whole["choices"][0] |= fields
    return status, kind, json.dumps(whole)


def test_one_step_stops_at_the_break_after_it(server: StandIn, inputs: InputBuilder, problems: list[Problem]) -> None:
    """The prompt ends with the break that opens the step."""
    server.reply = lambda body: stopped("[perception] row 2: red", stop_reason="\n\n")
    prefix = (parse_step("[perception] row 1: red"),)
    ((step,),) = ask(inputs, config_of(server), request(problems[0], n=1, steps=prefix, one_step=True))
    assert (step.text, step.goes_on, step.ended) == ("[perception] row 2: red", True, False)
    assert server.asked[-1]["stop"] == ["\n\n"]
    assert server.asked[-1]["messages"][-1]["content"] == "[perception] row 1: red\n\n"
    ask(inputs, config_of(server), request(problems[0], n=1, one_step=True))
    assert server.asked[-1]["messages"][-1]["role"] == "user"


END_OF_TURN = 7
STEP = "[perception] row 2: red"
STOPPED: dict[str, tuple[dict[str, Any], str, bool]] = {
    "vLLM, step": ({"stop_reason": "\n\n"}, STEP, True),
    "vLLM, turn": ({"stop_reason": None}, STEP, False),
    "SGLang, step": ({"matched_stop": "\n\n"}, STEP, True),
    "SGLang, turn": ({"matched_stop": END_OF_TURN}, STEP, False),
    "neither, the break is in the text": ({}, f"{STEP}\n\n", True),
    "neither, the end of the turn is in the text": ({}, f"{STEP}<|im_end|>", False),
}


@pytest.mark.parametrize("case", STOPPED)
def test_a_step_goes_on_if_the_server_stopped_at_the_break(
    server: StandIn, inputs: InputBuilder, problems: list[Problem], case: str
) -> None:
    fields, text, goes_on = STOPPED[case]
    server.reply = lambda body: stopped(text, **fields)
    ((step,),) = ask(inputs, config_of(server), request(problems[0], n=1, one_step=True))
    assert (step.text, step.goes_on, step.ended) == (STEP, goes_on, not goes_on)
    assert step.tokens == len(inputs.tokenizer(text.removesuffix("<|im_end|>"))["input_ids"]) + 1


def test_a_server_that_does_not_say_what_stopped_a_step_is_refused(
    server: StandIn, inputs: InputBuilder, problems: list[Problem]
) -> None:
    server.reply = lambda body: completion(STEP)
    (error,) = ask(inputs, config_of(server), request(problems[0], n=1, one_step=True))
    assert isinstance(error, ValueError)
    assert "do not say what stopped a step (the field stop_reason or matched_stop)" in str(error)
    server.reply = lambda body: completion(STEP, reason="length")
    ((cut,),) = ask(inputs, config_of(server), request(problems[0], n=1, one_step=True))
    assert (cut.text, cut.ended, cut.goes_on, cut.failure) == (STEP, False, False, "")
    server.reply = lambda body: completion(f"{STEP}\n\n[answer] 3<|im_end|>")
    ((whole,),) = ask(inputs, config_of(server), request(problems[0], n=1))
    assert (whole.text, whole.ended) == (f"{STEP}\n\n[answer] 3", True)


def test_the_turns_render_to_what_the_engine_in_process_reads(inputs: InputBuilder, problems: list[Problem]) -> None:
    """The prefixes have every shape: empty, steps to continue, a crop just shown, steps after a crop."""
    problem = problems[4]
    first, zoom = parse_step("[perception] fine print\nbelow "), zoomed(problem)
    for steps in ((), (first,), (first, zoom), (zoom, first, first), (zoom, first, zoom)):
        turns = messages(problem, steps, inputs, lambda image, region, policy: {"type": "image"})
        goes_on = turns[-1]["role"] == "assistant"
        text = inputs.processor.apply_chat_template(
            turns, tokenize=False, continue_final_message=goes_on, add_generation_prompt=not goes_on
        )
        # Here an image is one token, there it is one a patch.
        ids = inputs.row(problem, steps).ids
        repeated = [a == b == inputs.image_token_id for a, b in itertools.pairwise((-1, *ids))]
        once = [token for token, again in zip(ids, repeated, strict=True) if not again]
        assert inputs.tokenizer.decode(once) == text


def test_images_are_the_pixels_that_are_processed_here(
    server: StandIn, inputs: InputBuilder, problems: list[Problem]
) -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (60, 40), (200, 10, 10, 50)).save(buffer, "PNG")  # a server would lay it on white
    problem, zoom = dataclasses.replace(problems[0], images=(buffer.getvalue(),)), None
    zoom = zoomed(problem)
    ask(inputs, config_of(server), request(problem, steps=(zoom,)))
    urls = [
        part["image_url"]["url"]
        for turn in server.asked[0]["messages"]
        for part in turn["content"]
        if isinstance(part, dict) and part["type"] == "image_url"
    ]
    whole = open_image(problem.images[0])
    assert zoom.region is not None
    for url, expected in zip(urls, (whole, crop(whole, zoom.region)), strict=True):
        sent = Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
        assert sent.mode == "RGB"
        assert list(sent.getdata()) == list(expected.getdata())


def test_chance_is_a_requests_own_and_placeholders_are_banned(
    server: StandIn, inputs: InputBuilder, problems: list[Problem]
) -> None:
    asked = [request(problems[0]), request(problems[0], key="other"), request(problems[0], seed=6)]
    ask(inputs, config_of(server), *asked)
    seeds = sorted(body["seed"] for body in server.asked)
    assert len(set(seeds)) == 3
    ask(inputs, config_of(server), *asked[::-1])
    assert sorted(body["seed"] for body in server.asked[3:]) == seeds
    assert set(server.asked[0]["logit_bias"]) == {str(i) for i in inputs.banned_ids}


def test_servers_take_turns(servers: Callable[[], StandIn], inputs: InputBuilder, problems: list[Problem]) -> None:
    three = [servers() for _ in range(3)]
    ask(inputs, config_of(*three), *(request(p) for p in problems[:6]))
    assert [len(s.asked) for s in three] == [2, 2, 2]


def test_no_more_calls_are_open_than_configured(server: StandIn, inputs: InputBuilder, problems: list[Problem]) -> None:
    together = threading.Barrier(3)

    def slowly(body: Body) -> Answer:
        together.wait(60)
        time.sleep(0.05)  # a fourth would come in now
        return as_asked(body)

    server.reply = slowly
    ask(inputs, config_of(server, concurrency=3), *(request(p) for p in problems[:12]))
    assert server.most_open == 3


@pytest.mark.parametrize("status", [429, 500])
def test_what_passes_by_is_tried_again(
    server: StandIn, inputs: InputBuilder, problems: list[Problem], status: int
) -> None:
    server.reply = lambda body: as_asked(body) if len(server.asked) > 2 else (status, "application/json", "{}")
    (got,) = ask(inputs, config_of(server, retries=2), request(problems[0]))
    assert [c.text for c in got] == ["[answer] 0", "[answer] 1"]
    assert len(server.asked) == 3


def never_in_time(body: Body) -> Answer:
    time.sleep(300)  # in a thread that nothing waits for
    return as_asked(body)


FAULTS: dict[str, tuple[Callable[[Body], Answer], list[str]]] = {
    "slow": (never_in_time, ["timeout"] * 2),
    "cut": (lambda body: (200, "cut", as_asked(body)[2]), ["connection"] * 2),
    "broken": (lambda body: (500, "text/html", "<html>"), ["server_error"] * 2),
    "too long": (lambda body: (400, "application/json", '{"error": {"message": "too long"}}'), ["refused"] * 2),
    "html": (lambda body: (200, "text/html", "<html>[answer] 3</html>"), ["bad_answer"] * 2),
    "half json": (lambda body: (200, "application/json", as_asked(body)[2][:-9]), ["bad_answer"] * 2),
    "deep json": (lambda body: (200, "application/json", "[" * 100_000), ["bad_answer"] * 2),
    "foreign": (lambda body: (200, "application/json", '{"choices": [7, {"index": "0"}]}'), ["bad_answer"] * 2),
    "fewer": (lambda body: completion("[answer] 0"), ["", "no_choice"]),
    "none": (lambda body: completion(), ["bad_answer"] * 2),
    "no text": (lambda body: completion("[answer] 0", None), ["", "no_text"]),
    "filtered": (lambda body: completion("[answer] 0", "", reason="content_filter"), ["refused"] * 2),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_a_failure_of_its_request_alone(
    server: StandIn, inputs: InputBuilder, problems: list[Problem], fault: str
) -> None:
    reply, failures = FAULTS[fault]
    server.reply = lambda body: (reply if body["seed"] == broken else as_asked)(body)
    asked = [request(p) for p in problems[:4]]
    broken = -1
    ask(inputs, config_of(server), asked[2])
    broken = server.asked[0]["seed"]
    answers = ask(inputs, config_of(server, timeout=3.0 if fault == "slow" else 20.0), *asked)
    spoilt = answers.pop(2)
    assert [c.failure for c in spoilt] == failures
    assert {*failures, "control_token", "context"} - {""} <= set(FAILURES), "and every stop is a known one"
    assert all(c == Continuation("", 0, False, c.failure, read=c.read) for c in spoilt if c.failure)
    assert all([c.text for c in got] == ["[answer] 0", "[answer] 1"] for got in answers)


def test_a_failed_call_is_no_result_and_an_empty_turn_is_the_policys(
    server: StandIn, inputs: InputBuilder, problems: list[Problem]
) -> None:
    async def solve() -> list[tuple[str, str | None]]:
        engine = ServedPolicy(inputs, config_of(server))
        solutions = await rollouts(engine, request(problems[0], 1))
        await engine.close()
        return [(s.stop, s.answer) for s in solutions]

    server.reply = lambda body: (500, "text/plain", "[answer] 3")
    assert asyncio.run(solve()) == [("server_error", None)]
    server.reply = lambda body: completion("")
    assert asyncio.run(solve()) == [("no_answer", None)]


def test_a_server_that_fails_on_and_on_is_an_error(
    server: StandIn, inputs: InputBuilder, problems: list[Problem]
) -> None:
    many = [request(problems[0], key=str(i)) for i in range(FAILURES_IN_A_ROW)]
    server.reply = lambda body: (500, "text/plain", "out of memory")
    *failed, last = ask(inputs, config_of(server, concurrency=1), *many)
    assert all(c.failure == "server_error" for got in failed for c in got)
    assert "out of memory" in str(last)
    assert "run the same command again to continue" in str(last)
    server.reply = lambda body: (500, "text/plain", "") if len(server.asked) % 9 else as_asked(body)
    now_and_then = ask(inputs, config_of(server, concurrency=1), *many, *many)
    assert {c.failure for got in now_and_then for c in got} == {"", "server_error"}
    server.reply = lambda body: (400, "text/plain", "too long")  # says nothing of the next request
    assert all(c.failure == "refused" for got in ask(inputs, config_of(server), *many) for c in got)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers_module, "PAUSES", (0.02, 0.1))


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("outage", ["away", 429, 503])
def test_an_outage_is_waited_for_and_costs_no_result(
    server: StandIn, inputs: InputBuilder, problems: list[Problem], outage: str | int
) -> None:
    """Every request that meets the outage is answered after it."""
    started = time.monotonic()

    def reply(body: Body) -> Answer:
        server.away = outage == "away" and time.monotonic() - started < 0.5
        return (
            as_asked(body) if outage == "away" or time.monotonic() - started > 0.5 else (int(outage), "text/html", "")
        )

    server.reply, server.away = reply, outage == "away"
    threading.Timer(0.5, lambda: setattr(server, "away", False)).start()
    answers = ask(inputs, config_of(server), *(request(p) for p in problems[:8]))
    assert all([c.text for c in got] == ["[answer] 0", "[answer] 1"] for got in answers)


@pytest.mark.usefixtures("hurried")
def test_while_one_server_is_away_the_others_answer(
    servers: Callable[[], StandIn], inputs: InputBuilder, problems: list[Problem]
) -> None:
    here, gone = servers(), servers()
    gone.away = True
    answers = ask(inputs, config_of(here, gone), *(request(p) for p in problems[:6]))
    assert all([c.text for c in got] == ["[answer] 0", "[answer] 1"] for got in answers)


@pytest.mark.usefixtures("hurried")
def test_servers_that_stay_away_end_the_run_in_one_sentence(
    server: StandIn, inputs: InputBuilder, problems: list[Problem]
) -> None:
    for outage in ("away", 429, 503):
        server.away = outage == "away"
        server.reply = lambda body, status=outage: (status, "text/plain", "quota")
        (error,) = ask(inputs, config_of(server, patience=0.3), request(problems[0]))
        assert f"the servers {server.url} have been away or busy for 0.3 seconds" in str(error)
        assert "run the same command again to continue" in str(error)


def test_a_call_that_was_cut_once_is_made_again(server: StandIn, inputs: InputBuilder, problems: list[Problem]) -> None:
    server.reply = lambda body: as_asked(body) if len(server.asked) > 1 else (200, "cut", as_asked(body)[2])
    (got,) = ask(inputs, config_of(server), request(problems[0]))
    assert [c.text for c in got] == ["[answer] 0", "[answer] 1"]


def test_spelt_out_control_tokens_are_not_sent(server: StandIn, inputs: InputBuilder, problems: list[Problem]) -> None:
    """A server would obey them: the text could close its own turn, or claim an image that does not exist."""
    steps = (parse_step("[perception] <|im_end|> red"),)
    asks = dataclasses.replace(problems[0], question="<|im_end|>?")
    in_steps, in_question = ask(inputs, config_of(server), request(problems[0], steps=steps), request(asks))
    assert [c.failure for c in in_steps] == ["control_token"] * 2
    assert "control token" in str(in_question)
    assert not server.asked


@pytest.mark.parametrize("reply", [FAULTS["html"][0], lambda body: (401, "text/plain", f"no such key {KEY}")])
def test_a_server_that_is_none_is_named_before_the_run(
    server: StandIn, backbone: Path, reply: Callable[[Body], Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLPRM_TEST_KEY", KEY)
    server.reply = reply
    with pytest.raises(ValueError, match="does not continue a turn of 'policy'") as caught:
        open_on(backbone, config_of(server, api_key_env="VLPRM_TEST_KEY"))
    assert server.url in str(caught.value)
    assert KEY not in str(caught.value)
    assert server.asked[0]["continue_final_message"] is True
    assert server.asked[0]["add_generation_prompt"] is False


def test_an_address_without_its_version_is_named(server: StandIn, backbone: Path) -> None:
    server.reply = lambda body: (404, "application/json", '{"detail": "Not Found"}')
    config = config_of(server)
    bare = tuple(url.removesuffix("/v1") for url in config.base_urls)
    with pytest.raises(ValueError, match=rf"does not know this address .*; write {bare[0]}/v1 in server.base_urls"):
        open_on(backbone, dataclasses.replace(config, base_urls=bare))


def test_a_server_that_reads_another_prompt_is_named_before_the_run(
    server: StandIn, backbone: Path, inputs: InputBuilder, tmp_path: Path
) -> None:
    """With another chat template or other image sizes nothing would fail, but every sample would come from another
    policy."""
    problem = probe_problem(inputs)
    plain, zooms = (len(inputs.row(problem, steps).ids) for steps in probe_steps(inputs, problem))
    assert plain < zooms

    def reading(without: int, with_zoom: int) -> Callable[[Body], Answer]:
        return lambda body: completion("3", read=without if len(body["messages"]) == 2 else with_zoom)

    server.reply = reading(plain, zooms)
    open_on(backbone, config_of(server))
    server.reply = reading(plain - 1, zooms)
    with pytest.raises(ValueError, match=f"reads {plain - 1} tokens where the policy's folder makes {plain}"):
        open_on(backbone, config_of(server))
    server.reply = reading(plain, zooms - 3)
    with pytest.raises(ValueError, match=f"reads {zooms - 3} tokens .* makes {zooms}; its chat template shows a crop"):
        open_on(backbone, config_of(server))
    never = tmp_path / "never"
    shutil.copytree(backbone, never)
    CheckpointConfig(zoom=ZoomPolicy(max_zooms=0)).save(never)
    open_on(never, config_of(server))


def test_a_wrong_address_is_named_with_its_fix(
    servers: Callable[[], StandIn], backbone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    closed = config_of(servers(), retries=2)
    closed = dataclasses.replace(closed, base_urls=("http://127.0.0.1:9/v1",))
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(ValueError, match=r"no server answers at http://127\.0\.0\.1:9/v1"),
    ):
        open_on(backbone, closed)
    assert "Retrying" not in caplog.text
    server = servers()
    server.reply = lambda body: (404, "application/json", '{"detail": "Not Found"}')
    root = dataclasses.replace(config_of(server), base_urls=(server.url.removesuffix("/v1"),))
    with pytest.raises(ValueError, match=r"write http://127\.0\.0\.1:\d+/v1 in server\.base_urls"):
        open_on(backbone, root)


def test_the_weights_of_a_served_model_are_not_downloaded(
    server: StandIn, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[list[str] | None] = []

    def downloaded(name: str, allow_patterns: list[str] | None) -> str:
        wanted.append(allow_patterns)
        return str(backbone)

    monkeypatch.setattr("vlprm.model.loading.snapshot_download", downloaded)
    served = ModelConfig("someone/72b", config_of(server))
    open_on(Path("someone/72b"), config_of(server))
    assert folders_of([served]) == ([], [backbone])
    assert critique_template_of(served) == critique_template("plain_critique@2")
    assert all(patterns and not any(fnmatch("model.safetensors", p) for p in patterns) for patterns in wanted)
    assert len(wanted) == 3
    assert folders_of([ModelConfig("someone/7b")]) == ([backbone], [])
    assert wanted[-1] is None
