"""Client of chat servers that speak OpenAI's protocol: calls in rotation, a limit on open calls, typed failures, and
waiting during outages.

A call that still fails after its retries is a `Failure`, and no result for the caller, if the server otherwise answers.
If it does not, the call waits until a server is back.
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
from cachetools import LRUCache
from openai import AsyncOpenAI

from vlprm.cache import cached
from vlprm.errors import UserError
from vlprm.images import content_hash, open_image, png
from vlprm.schema import Region
from vlprm.serving.config import ServerConfig
from vlprm.zoom.policy import ZoomPolicy

log = logging.getLogger(__name__)

Message = dict[str, Any]
# An image, the region of it to show (None: all), and how crops are made.
ShownImage = tuple[bytes, Region | None, ZoomPolicy]

URL_BYTES = 1 << 29  # cache size for images as data URLs, which all requests of a problem share
FAILURES_IN_A_ROW = 16  # failed calls without a success between, while servers answer other requests: the run stops
REFUSED = {400, 413, 422}  # statuses that concern the request, not the server
BUSY = {429, 502, 503, 504}
PAUSES = (1.0, 30.0)  # first and longest pause in seconds between tries while servers are away or busy


@dataclass(frozen=True)
class Answer:
    """The choices of an answered call by index (of a pooling call: the pooled sequences), and the tokens that the
    server read and wrote for all of them (None: not reported)."""

    choices: dict[int, Message]
    read: int | None
    written: int | None


@dataclass(frozen=True)
class Failure:
    """A call without an answer. `stop` becomes the solution's `stop`; `said` is the text for messages."""

    stop: str
    said: str


async def _chat(client: AsyncOpenAI, body: dict[str, Any]) -> str:
    text: str = (await client.chat.completions.with_raw_response.create(**body)).text
    return text


async def _pooling(client: AsyncOpenAI, body: dict[str, Any]) -> str:
    # Not part of OpenAI's protocol: vLLM serves it next to /v1, not below it.
    root = str(client.base_url).removesuffix("/").removesuffix("/v1")
    return await client.post(f"{root}/pooling", body=body, cast_to=str)


Kind = Literal["chat", "pooling"]  # a call returns texts, or numbers per token
# How a call is sent, what its answer is called, and the field that lists its choices.
CALLS: dict[Kind, tuple[Callable[[AsyncOpenAI, dict[str, Any]], Awaitable[str]], str, str]] = {
    "chat": (_chat, "chat completion", "choices"),
    "pooling": (_pooling, "pooling response", "data"),
}


class Servers:
    """Clients of one config's servers. Create and `close` it in the same event loop."""

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
        self._urls: LRUCache[ShownImage, str] = LRUCache(URL_BYTES, getsizeof=len)

    async def close(self) -> None:
        """Close all connections."""
        for client in self.clients:
            await client.close()

    def url(self, image: bytes, region: Region | None = None, policy: ZoomPolicy = ZoomPolicy()) -> str:
        """The image as a data URL, from a cache."""
        return cached(self._urls, (image, region, policy), lambda: data_url(image, region, policy))

    async def call(self, body: dict[str, Any], kind: Kind = "chat") -> Answer | Failure:
        """Call the server whose turn it is, or the next one if that is busy or away.

        UserError if no server takes calls for longer than the config's patience, or if the servers answer but every
        call fails: the run would consist of failures.
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
                if answer.stop == "connection" and not cut:  # the server may have come back since; try once more
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
        """Make one call; the client's own retries are included."""
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
        return parsed(text, listed) or Failure("bad_answer", self._plain(f"not a {what}: {text}"))

    def _refuse_to_wait(self, since: float, pause: float, failure: Failure) -> None:
        if time.monotonic() - since + pause > self.config.patience:
            raise UserError(
                f"the servers {' and '.join(self.config.base_urls)} have been away or busy for"
                f" {self.config.patience:g} seconds (the last call: {failure.said}); start them, then run the same"
                " command again to continue"
            )
        if not self._noted:  # log once per outage, not once per waiting call
            log.info("no server takes calls (%s); trying again for %g seconds", failure.said, self.config.patience)
            self._noted = True

    def _plain(self, said: str) -> str:
        """A server's reply as one short line, without the key, which some servers repeat."""
        return " ".join(said.replace(self._key, "(key)").split())[:200]

    def _count(self, failure: Failure) -> None:
        self._failed_in_a_row += failure.stop != "refused"
        if self._failed_in_a_row >= FAILURES_IN_A_ROW:
            raise UserError(
                f"{self._failed_in_a_row} calls in a row failed (the last: {failure.said}); look at the log of"
                f" {' and '.join(self.config.base_urls)}, then run the same command again to continue"
            )


async def _is_there(client: AsyncOpenAI) -> bool:
    """Whether a server answers at all, with any status that does not mean an outage."""
    try:
        await client.with_options(max_retries=0, timeout=10.0).models.list()
    except openai.APIStatusError as error:
        return error.status_code < 500 and error.status_code not in BUSY
    except openai.OpenAIError:
        return False
    return True


def unanswered(client: AsyncOpenAI, failure: Failure, what: str, start: str) -> str:
    """The message about a server that fails a first small call: `what` it does not do, and how to `start` it."""
    url = str(client.base_url).rstrip("/")
    if failure.stop == "connection":
        return f"no server answers at {url} ({failure.said}); correct server.base_urls, or {start}"
    if failure.said.startswith("status 404") and not url.endswith("/v1"):
        return f"the server at {url} does not know this address ({failure.said}); write {url}/v1 in server.base_urls"
    return f"the server {url} {what} ({failure.said}); correct the fields of server, or {start}"


def data_url(image: bytes, region: Region | None, policy: ZoomPolicy) -> str:
    """The exact pixels that this process would use, as a PNG data URL, whatever the file's format."""
    opened = open_image(image, f"image {content_hash(image)}")
    shown = opened if region is None else policy.crop(opened, region)
    return "data:image/png;base64," + base64.b64encode(png(shown)).decode()


def user_turn(urls: Sequence[str], text: str) -> Message:
    """A user message with images, followed by text if there is any."""
    parts: list[Message] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}] if text else parts}


def text_of(choice: Message | None) -> tuple[str, bool] | str:
    """The text of a choice and whether it ended by itself, or the `stop` of a failure."""
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
    """Parse a server's response, whose field `name` lists the choices; None if it is malformed or empty."""
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
        return "no-key-needed"  # the client requires a key; servers without one ignore it
    key = os.environ.get(config.api_key_env, "")
    if not key:
        raise UserError(f"the environment variable {config.api_key_env} is not set; set it to the servers' key")
    return key
