"""A policy behind an OpenAI-compatible chat server as an engine: many requests in flight, none in another's way.

The messages are such that the server's chat template renders what `InputBuilder` makes of the same problem and steps.
A call that fails after its tries becomes continuations with a `failure`, which are no results; where calls keep
failing, the server is down, and that is an error.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import itertools
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import openai
from openai import AsyncOpenAI
from PIL import Image

from vlprm.cache import ByteCache
from vlprm.engines import Continuation, Request
from vlprm.engines.choose import ServerConfig
from vlprm.images import Size, content_hash, crop, open_image
from vlprm.inputs import InputBuilder
from vlprm.profile import Profile
from vlprm.prompts import user_text
from vlprm.schema import Problem, Region, Step
from vlprm.steps import SEPARATOR, join_steps, parse_step

Message = dict[str, Any]
ShownImage = tuple[bytes, Region | None]  # an image, or the part of it that a zoom shows

URL_BYTES = 1 << 29  # of images as data URLs, which all requests of a problem share
FAILURES_IN_A_ROW = 16  # without a success between them: no longer one request's misfortune
REFUSED = {400, 413, 422}  # statuses that speak of this very request, and not of the server


@dataclass(frozen=True)
class Answer:
    """The choices of an answered call by their index, and how many tokens the server read (None: it does not say)."""

    choices: dict[int, Message]
    read: int | None


@dataclass(frozen=True)
class Failure:
    """A call without an answer: `stop` is what the solution's `stop` becomes, `said` is for a message."""

    stop: str
    said: str


class ServerEngine:
    """Its state: a client for each server, whose turn it is, how many calls are open, and how many failed in a row.

    For one event loop; `close` it there.
    """

    def __init__(self, inputs: InputBuilder, config: ServerConfig) -> None:
        self.inputs, self.config = inputs, config
        self.dialect = inputs.profile.dialect
        self._key = _key(config)
        self._clients = [
            AsyncOpenAI(base_url=url, api_key=self._key, timeout=config.timeout, max_retries=config.retries)
            for url in config.base_urls
        ]
        self._turns = itertools.cycle(self._clients)
        self._open = asyncio.Semaphore(config.concurrency)
        self._failed_in_a_row = 0
        self._urls: ByteCache[ShownImage, str] = ByteCache(URL_BYTES, lambda key, url: len(key[0]) + len(url))
        self._sampling = _sampling(inputs)

    def seen_size(self, problem: Problem) -> Size:
        return self.inputs.seen_size(problem)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()

    async def check(self) -> None:
        """ValueError that names a server which does not continue an assistant's turn, or which reads another prompt
        than `inputs` makes: another chat template, other sizes of images."""
        probe, steps = _probe(self.inputs.profile), (parse_step("2"),)
        body = self._body(messages(probe, steps, self.inputs.profile, self._url))
        expected = len(self.inputs.row(probe, steps).ids)
        for client in self._clients:
            answer = await self._call(client, {**body, "max_tokens": 1})
            if isinstance(answer, Failure):
                raise ValueError(
                    f"the server {client.base_url} does not continue a turn of {self.config.model!r} ({answer.said});"
                    " correct the fields of server, or start it as configs/server/trees.yaml says"
                )
            if answer.read not in (None, expected):
                raise ValueError(
                    f"the server {client.base_url} reads {answer.read} tokens where the folder of the policy makes"
                    f" {expected}; serve that folder, with its vlprm.json's sizes of images (--mm-processor-kwargs)"
                )

    async def sample(self, request: Request) -> list[Continuation]:
        if any(self.inputs.control_token(step.text) for step in request.steps):
            # In this process it stays text; a server would take it for the control token that it spells.
            return [_failed("control_token")] * request.n
        async with self._open:
            answer = await self._call(next(self._turns), self._asked(request))
        if isinstance(answer, Failure):
            self._count(answer)
            return [_failed(answer.stop)] * request.n
        self._failed_in_a_row = 0
        after_step = bool(request.steps) and request.steps[-1].region is None
        return [self._continuation(answer.choices.get(i), after_step) for i in range(request.n)]

    def _asked(self, request: Request) -> dict[str, Any]:
        self.inputs.check_question(request.problem.question)
        return {
            **self._body(messages(request.problem, request.steps, self.inputs.profile, self._url)),
            "n": request.n,
            "seed": _seed(request),
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
        }

    def _body(self, turns: Sequence[Message]) -> dict[str, Any]:
        goes_on = turns[-1]["role"] == "assistant"
        extra = {
            "continue_final_message": goes_on,
            "add_generation_prompt": not goes_on,
            **self._sampling["extra_body"],
        }
        return {**self._sampling, "model": self.config.model, "messages": turns, "extra_body": extra}

    def _url(self, image: bytes, region: Region | None = None) -> str:
        return self._urls.get((image, region), lambda: data_url(image, region))

    async def _call(self, client: AsyncOpenAI, body: dict[str, Any]) -> Answer | Failure:
        """One call. The client has tried again where that can help."""
        try:
            answer = await client.chat.completions.with_raw_response.create(**body)
        except openai.APITimeoutError:
            return Failure("timeout", f"no answer within {self.config.timeout:g} seconds")
        except openai.APIConnectionError as error:
            return Failure("connection", self._plain(f"{error} {error.__cause__ or ''}"))
        except openai.APIStatusError as error:
            stop = "refused" if error.status_code in REFUSED else "server_error"
            return Failure(stop, self._plain(f"status {error.status_code}: {error.response.text}"))
        return parsed(answer.text) or Failure("bad_answer", self._plain(f"no chat completion: {answer.text}"))

    def _plain(self, said: str) -> str:
        """One short line of what a server said, without the key, which some repeat."""
        return " ".join(said.replace(self._key, "(key)").split())[:200]

    def _count(self, failure: Failure) -> None:
        """ValueError where no call succeeds any more: a run that went on would consist of no results."""
        self._failed_in_a_row += failure.stop != "refused"
        if self._failed_in_a_row >= FAILURES_IN_A_ROW:
            raise ValueError(
                f"{self._failed_in_a_row} calls in a row failed (the last: {failure.said}); look at the log of"
                f" {' and '.join(self.config.base_urls)}, then run the same command again to go on"
            )

    def _continuation(self, choice: Message | None, after_step: bool) -> Continuation:
        if choice is None:
            return _failed("no_choice")
        message = choice.get("message")
        text = message.get("content") if isinstance(message, dict) else None
        if not isinstance(text, str):
            return _failed("no_text")
        if choice.get("finish_reason") not in ("stop", "length"):
            return _failed("refused")
        ended = choice["finish_reason"] == "stop"
        # Servers count the tokens of all choices together; the end of the turn is one, as it is in this process.
        tokens = len(self.inputs.tokenizer(text, add_special_tokens=False)["input_ids"]) + ended
        return Continuation(text.removeprefix(SEPARATOR) if after_step else text, tokens, ended)


def messages(
    problem: Problem, steps: Sequence[Step], profile: Profile, url: Callable[[bytes, Region | None], str]
) -> list[Message]:
    """The turns of a problem and steps. A zoom that was executed ends its turn, and a user's turn shows its crop; steps
    after the last one are a turn to be continued."""
    shown = [url(image, None) for image in problem.images]
    turns = [_user_turn(shown, user_text(profile.prompt_template, problem))]
    written: list[Step] = []
    for step in steps:
        written.append(step)
        if step.region is not None:
            turns.append({"role": "assistant", "content": join_steps(written)})
            turns.append(_user_turn([url(problem.images[0], step.region)], ""))
            written = []
    return [*turns, {"role": "assistant", "content": join_steps(written)}] if written else turns


def data_url(image: bytes, region: Region | None) -> str:
    """The very pixels that this process would process, whatever the file's format."""
    opened = open_image(image, f"image {content_hash(image)}")
    png = _png(opened if region is None else crop(opened, region))
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def parsed(text: str) -> Answer | None:
    """What a server sent; None where it is no chat completion, or one without a choice."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return None
    listed = body.get("choices") if isinstance(body, dict) else None
    known = [c for c in listed if isinstance(c, dict)] if isinstance(listed, list) else []
    choices = {c["index"]: c for c in known if isinstance(c.get("index"), int)}
    usage = body.get("usage") if choices else None
    return Answer(choices, usage.get("prompt_tokens") if isinstance(usage, dict) else None) if choices else None


def _probe(profile: Profile) -> Problem:
    """A question with an image that is to be enlarged and one that is to be shrunk, if the sizes are those declared."""
    sides = max(8, math.isqrt(profile.min_pixels) // 2), 2 * math.isqrt(profile.max_pixels)
    return Problem("probe", "probe", "1", tuple(_png(Image.new("RGB", (side, side))) for side in sides), None, "word")


def _sampling(inputs: InputBuilder) -> dict[str, Any]:
    """What makes a server sample and render as the engine in this process does, whatever a checkpoint's
    generation_config asks for. Control tokens are shown: they are part of what was written."""
    extra = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "skip_special_tokens": False}
    return {
        "top_p": 1.0,
        "logit_bias": {str(i): -100 for i in inputs.banned_ids},
        "extra_body": extra,
    }


def _user_turn(urls: Sequence[str], text: str) -> Message:
    parts: list[Message] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}] if text else parts}


def _key(config: ServerConfig) -> str:
    if config.api_key_env is None:
        return "no-key-needed"  # the client asks for one; servers without a key ignore it
    key = os.environ.get(config.api_key_env, "")
    if not key:
        raise ValueError(f"the environment variable {config.api_key_env} is not set; put the servers' key into it")
    return key


def _seed(request: Request) -> int:
    digest = hashlib.sha256(f"{request.seed}/{request.key}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _failed(why: str) -> Continuation:
    return Continuation("", 0, False, why)
