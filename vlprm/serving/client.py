"""Chat servers that speak OpenAI's protocol: calls in rotation, a limit of open ones, typed failures, and outages that
are waited for.

A call that fails after the client's tries is a `Failure` of that call, and a no result for whoever asked, if the server
still answers otherwise. If it does not, nothing is wrong with the call: it waits until a server is back.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import openai
from openai import AsyncOpenAI

from vlprm.cache import ByteCache
from vlprm.images import content_hash, open_image, png
from vlprm.schema import Region
from vlprm.serving.config import ServerConfig
from vlprm.zoom.policy import ZoomPolicy

log = logging.getLogger(__name__)

Message = dict[str, Any]
# An image, or the part of it that a zoom shows, and how.
ShownImage = tuple[bytes, Region | None, ZoomPolicy]

URL_BYTES = 1 << 29  # of images as data URLs, which all requests of a problem share
FAILURES_IN_A_ROW = 16  # of servers that answer otherwise, without a success between: no longer one call's misfortune
REFUSED = {400, 413, 422}  # statuses that speak of this very request, and not of the server
BUSY = {429, 502, 503, 504}
PAUSES = (1.0, 30.0)  # seconds between two tries while servers are away or busy: the first, and the longest


@dataclass(frozen=True)
class Answer:
    """The choices of an answered call by their index (of a pooling call: the pooled sequences), and how many tokens the
    server read and wrote for all of them (None: it does not say)."""

    choices: dict[int, Message]
    read: int | None
    written: int | None


@dataclass(frozen=True)
class Failure:
    """A call without an answer: `stop` is what the solution's `stop` becomes, `said` is for a message."""

    stop: str
    said: str


async def _chat(client: AsyncOpenAI, body: dict[str, Any]) -> str:
    text: str = (await client.chat.completions.with_raw_response.create(**body)).text
    return text


async def _pooling(client: AsyncOpenAI, body: dict[str, Any]) -> str:
    # No part of OpenAI's protocol: vLLM has it beside /v1 and not below it.
    root = str(client.base_url).removesuffix("/").removesuffix("/v1")
    return await client.post(f"{root}/pooling", body=body, cast_to=str)


Kind = Literal["chat", "pooling"]  # of a call: texts, or numbers a token
# How a call is sent, what an answer to it is, and under which name it lists what it holds.
CALLS: dict[Kind, tuple[Callable[[AsyncOpenAI, dict[str, Any]], Awaitable[str]], str, str]] = {
    "chat": (_chat, "chat completion", "choices"),
    "pooling": (_pooling, "pooling response", "data"),
}


class Servers:
    """Its state: a client for each server, whose turn it is, how many calls are open, and how many failed in a row.

    For one event loop; `close` it there.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self._key = _key(config)
        self.clients = [
            AsyncOpenAI(base_url=url, api_key=self._key, timeout=config.timeout, max_retries=config.retries)
            for url in config.base_urls
        ]
        self._turns = itertools.cycle(self.clients)
        self._open = asyncio.Semaphore(config.concurrency)
        self._failed_in_a_row = 0
        self._noted = False
        self._urls: ByteCache[ShownImage, str] = ByteCache(URL_BYTES, lambda key, url: len(key[0]) + len(url))

    async def close(self) -> None:
        for client in self.clients:
            await client.close()

    def url(self, image: bytes, region: Region | None = None, policy: ZoomPolicy = ZoomPolicy()) -> str:
        """The image as a data URL, made once."""
        return self._urls.get((image, region, policy), lambda: data_url(image, region, policy))

    async def call(self, body: dict[str, Any], kind: Kind = "chat") -> Answer | Failure:
        """A call to the server whose turn it is, and to the next one where that is busy or away.

        ValueError where that lasts for longer than the config's patience, or where the servers answer and no call
        succeeds any more: a run that went on would consist of no results.
        """
        waiting_since, pause, tries, cut = None, PAUSES[0], 0, False
        while True:
            client = next(self._turns)
            async with self._open:
                answer = await self.once(client, body, kind)
            if isinstance(answer, Answer):
                self._failed_in_a_row, self._noted = 0, False
                return answer
            if answer.stop == "refused" or (answer.stop != "busy" and await _is_there(client)):
                if answer.stop == "connection" and not cut:  # it may have come back after the call was lost
                    cut = True
                    continue
                self._count(answer)
                return answer
            tries += 1
            if tries % len(self.clients):
                continue
            waiting_since = waiting_since or time.monotonic()
            self._refuse_to_wait(waiting_since, pause, answer)
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSES[1])

    async def once(self, client: AsyncOpenAI, body: dict[str, Any], kind: Kind = "chat") -> Answer | Failure:
        """One call. The client has tried again where that can help."""
        send, what, listed = CALLS[kind]
        try:
            text = await send(client, body)
        except openai.APITimeoutError:
            return Failure("timeout", f"no answer within {self.config.timeout:g} seconds")
        except openai.APIConnectionError as error:
            return Failure("connection", self._plain(f"{error} {error.__cause__ or ''}"))
        except openai.APIStatusError as error:
            status = error.status_code
            stop = "refused" if status in REFUSED else "busy" if status in BUSY else "server_error"
            return Failure(stop, self._plain(f"status {status}: {error.response.text}"))
        return parsed(text, listed) or Failure("bad_answer", self._plain(f"no {what}: {text}"))

    def _refuse_to_wait(self, since: float, pause: float, failure: Failure) -> None:
        if time.monotonic() - since + pause > self.config.patience:
            raise ValueError(
                f"the servers {' and '.join(self.config.base_urls)} have been away or busy for"
                f" {self.config.patience:g} seconds (the last call: {failure.said}); start them, then run the same"
                " command again to go on"
            )
        if not self._noted:  # once an outage: other calls wait for the same
            log.info("no server takes calls (%s); trying again for %g seconds", failure.said, self.config.patience)
            self._noted = True

    def _plain(self, said: str) -> str:
        """One short line of what a server said, without the key, which some repeat."""
        return " ".join(said.replace(self._key, "(key)").split())[:200]

    def _count(self, failure: Failure) -> None:
        self._failed_in_a_row += failure.stop != "refused"
        if self._failed_in_a_row >= FAILURES_IN_A_ROW:
            raise ValueError(
                f"{self._failed_in_a_row} calls in a row failed (the last: {failure.said}); look at the log of"
                f" {' and '.join(self.config.base_urls)}, then run the same command again to go on"
            )


async def _is_there(client: AsyncOpenAI) -> bool:
    """Whether a server answers at all: any status that does not speak of an outage will do."""
    try:
        await client.with_options(max_retries=0, timeout=10.0).models.list()
    except openai.APIStatusError as error:
        return error.status_code < 500 and error.status_code not in BUSY
    except openai.OpenAIError:
        return False
    return True


def data_url(image: bytes, region: Region | None, policy: ZoomPolicy) -> str:
    """The very pixels that this process would process, whatever the file's format."""
    opened = open_image(image, f"image {content_hash(image)}")
    shown = opened if region is None else policy.crop(opened, region)
    return "data:image/png;base64," + base64.b64encode(png(shown)).decode()


def user_turn(urls: Sequence[str], text: str) -> Message:
    parts: list[Message] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}] if text else parts}


def text_of(choice: Message | None) -> tuple[str, bool] | str:
    """What a choice says and whether it ended by itself; or the stop of a failure."""
    if choice is None:
        return "no_choice"
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    if not isinstance(text, str):
        return "no_text"
    if choice.get("finish_reason") not in ("stop", "length"):
        return "refused"
    return text, choice["finish_reason"] == "stop"


def parsed(text: str, name: str) -> Answer | None:
    """What a server sent, which lists its choices under that name; None where it is none such, or has no choice."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return None
    listed = body.get(name) if isinstance(body, dict) else None
    known = [c for c in listed if isinstance(c, dict)] if isinstance(listed, list) else []
    choices = {c["index"]: c for c in known if isinstance(c.get("index"), int)}
    usage = body.get("usage") if choices else None
    counts = usage if isinstance(usage, dict) else {}
    return Answer(choices, counts.get("prompt_tokens"), counts.get("completion_tokens")) if choices else None


def _key(config: ServerConfig) -> str:
    if config.api_key_env is None:
        return "no-key-needed"  # the client asks for one; servers without a key ignore it
    key = os.environ.get(config.api_key_env, "")
    if not key:
        raise ValueError(f"the environment variable {config.api_key_env} is not set; put the servers' key into it")
    return key
