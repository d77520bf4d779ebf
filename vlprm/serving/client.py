"""Client of chat servers that speak OpenAI's protocol: a server for each problem, limits on open calls, typed failures,
and waiting during outages.

A call that still fails after its retries is a `Failure`, and no result for the caller, if the server otherwise answers.
If it does not, the call goes to another server, or waits until one is back.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import openai
from cachetools import LRUCache
from openai import AsyncOpenAI

from vlprm.cache import cached
from vlprm.errors import UserError
from vlprm.runs.cost import Usage
from vlprm.schema import Region
from vlprm.serving.balance import Balance, Server
from vlprm.serving.config import ServerConfig
from vlprm.serving.wire import ShownImage, data_url, encoded
from vlprm.zoom.policy import ZoomPolicy

log = logging.getLogger(__name__)

Message = dict[str, Any]
# An image, the region of it to show (None: all), and how crops are made.
Shown = tuple[bytes, Region | None, ZoomPolicy]

URL_BYTES = 1 << 29  # cache size for images as data URLs, which all requests of a problem share
FAILURES_IN_A_ROW = 16  # failed calls without a success between, while servers answer other requests: the run stops
REFUSED = {400, 413, 422}  # statuses that concern the request, not the server
BUSY = {429, 502, 503, 504}
RETRY = (0.5, 8.0)  # first and longest pause in seconds before the same server is asked again
PAUSES = (1.0, 30.0)  # first and longest pause in seconds between tries while servers are away or busy


@dataclass(frozen=True)
class Answer:
    """The choices of an answered call by index (of a pooling call: the pooled sequences), the tokens that the server
    read and wrote for all of them, and how many of those that it read were in its prefix cache (None: not reported)."""

    choices: dict[int, Message]
    read: int | None
    written: int | None
    cached: int | None = None


@dataclass(frozen=True)
class Failure:
    """A call without an answer. `stop` becomes the solution's `stop`; `said` is the text for messages. `again`: the
    same call may be answered later, after `wait` seconds if the server says so."""

    stop: str
    said: str
    again: bool = False
    wait: float = 0.0


Kind = Literal["chat", "pooling"]  # a call returns texts, or numbers per token
# What an answer is called, and the field that lists its choices.
CALLS: dict[Kind, tuple[str, str]] = {"chat": ("chat completion", "choices"), "pooling": ("pooling response", "data")}


class Servers:
    """Clients of one config's servers. Create and `close` it in the same event loop. `usage`: what its calls cost."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self._key = _key(config)
        clients = (
            AsyncOpenAI(base_url=url, api_key=self._key, timeout=config.timeout, max_retries=0)
            for url in config.base_urls
        )
        self.each = [Server(client, config.concurrency) for client in clients]
        self.usage = Usage()
        self._balance = Balance(self.each)
        self._failed_in_a_row = 0
        self._noted = False
        self._images: LRUCache[Shown, ShownImage] = LRUCache(URL_BYTES, getsizeof=lambda image: len(image.url))

    async def close(self) -> None:
        """Close all connections."""
        for server in self.each:
            await server.client.close()

    def image(self, image: bytes, region: Region | None = None, policy: ZoomPolicy = ZoomPolicy()) -> ShownImage:
        """The part of a message that shows an image, from a cache."""
        return cached(self._images, (image, region, policy), lambda: ShownImage(data_url(image, region, policy)))

    async def call(self, body: dict[str, Any], problem: str, kind: Kind = "chat") -> Answer | Failure:
        """Call the server of a problem, or another one if that is overloaded or away.

        UserError if no server takes calls for longer than the config's patience, or if the servers answer but every
        call fails: the run would consist of failures.
        """
        waiting_since, pause, cuts = None, PAUSES[0], max(1, self.config.retries)
        tried: set[Server] = set()
        while True:
            server = self._balance.server_for(problem, but=tried)
            async with server.slot():
                answer = await self.once(server, body, kind)
            if isinstance(answer, Answer):
                self._failed_in_a_row, self._noted = 0, False
                return answer
            if answer.stop == "refused" or (answer.stop != "busy" and await _is_there(server)):
                if answer.stop == "connection" and cuts:  # the server may have come back since
                    cuts -= 1
                    await asyncio.sleep(RETRY[0])
                    continue
                self._count(answer)
                return answer
            if answer.stop != "busy":
                server.leaves()
            tried.add(server)
            if len(tried) < len(self.each):
                continue
            tried.clear()
            waiting_since = waiting_since or time.monotonic()
            self._refuse_to_wait(waiting_since, pause, answer)
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSES[1])

    async def once(self, server: Server, body: dict[str, Any], kind: Kind = "chat") -> Answer | Failure:
        """Make one call, with the config's retries while the server is busy or fails."""
        pause, tries = RETRY[0], self.config.retries
        while True:
            answer = await self._asked(server, body, kind)
            self.usage += spent(answer)
            if isinstance(answer, Answer) or not answer.again or not tries:
                return answer
            tries -= 1
            await asyncio.sleep(min(answer.wait, PAUSES[1]) or pause)
            pause = min(2 * pause, RETRY[1])

    async def _asked(self, server: Server, body: dict[str, Any], kind: Kind) -> Answer | Failure:
        """One request; two if the server does not keep the images that it was asked about by name."""
        began = time.monotonic()
        content, images = encoded(body, server.images)
        by_name = [image for image in images if server.images.has(image)]
        answer = await self._sent(server, content, kind)
        if by_name and isinstance(answer, Failure) and answer.stop == "refused":
            server.images.forget(by_name)
            content, images = encoded(body, server.images)
            answer = await self._sent(server, content, kind)
            if isinstance(answer, Answer):  # otherwise the image was not the reason for the refusal
                server.images.missed()
        if isinstance(answer, Answer):
            server.answered()
            server.images.answered(images)
        elif answer.stop in ("busy", "timeout"):
            server.overloaded(began)
        return answer

    async def _sent(self, server: Server, content: bytes, kind: Kind) -> Answer | Failure:
        what, listed = CALLS[kind]
        # Pooling is not part of OpenAI's protocol: vLLM serves it next to /v1, not below it.
        address = "/chat/completions" if kind == "chat" else f"{server.url.removesuffix('/v1')}/pooling"
        try:
            text = await server.client.post(
                address, content=content, cast_to=str, options={"headers": {"Content-Type": "application/json"}}
            )
        except openai.APITimeoutError:
            return Failure("timeout", f"no answer within {self.config.timeout:g} seconds", again=True)
        except openai.APIConnectionError as error:
            return Failure("connection", self._plain(f"{error} {error.__cause__ or ''}"))
        except openai.APIStatusError as error:
            return self._refusal(error)
        return parsed(text, listed) or Failure("bad_answer", self._plain(f"not a {what}: {text}"))

    def _refusal(self, error: openai.APIStatusError) -> Failure:
        status, wait = error.status_code, error.response.headers.get("retry-after", "")
        stop = "refused" if status in REFUSED else "busy" if status in BUSY else "server_error"
        said = self._plain(f"status {status}: {error.response.text}")
        return Failure(stop, said, status in BUSY or status >= 500, float(wait) if wait.isdecimal() else 0.0)

    async def learn_names(self, server: Server, body: dict[str, Any], kind: Kind = "chat") -> None:
        """Find out whether a server keeps images under names, as vLLM does: a small request that shows an image is
        answered alike with the image and with its name alone."""
        if not await _is_vllm(server):
            return
        server.images.on = True
        first, second = [await self._asked(server, body, kind) for _ in range(2)]
        read = [answer.read for answer in (first, second) if isinstance(answer, Answer)]
        server.images.on = len(read) == 2 and read[0] == read[1] is not None and not server.images.misses
        log.info("%s %s images by name", server.url, "keeps" if server.images.on else "does not keep")

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


async def _is_there(server: Server) -> bool:
    """Whether a server answers at all, with any status that does not mean an outage."""
    try:
        await server.client.with_options(timeout=10.0).models.list()
    except openai.APIStatusError as error:
        return error.status_code < 500 and error.status_code not in BUSY
    except openai.OpenAIError:
        return False
    return True


async def _is_vllm(server: Server) -> bool:
    try:
        models = await server.client.with_options(timeout=10.0).models.list()
    except openai.OpenAIError:
        return False
    return any(getattr(model, "owned_by", "") == "vllm" for model in models.data or ())


async def vllm_version(server: Server) -> str | None:
    """The version that a vLLM says it has; None for another server."""
    try:
        text = await server.client.with_options(timeout=10.0).get(
            f"{server.url.removesuffix('/v1')}/version", cast_to=str
        )
        said = json.loads(text)
    except (openai.OpenAIError, ValueError, RecursionError):
        return None
    version = said.get("version") if isinstance(said, dict) else None
    return version if isinstance(version, str) else None


def unanswered(server: Server, failure: Failure, what: str, start: str) -> str:
    """The message about a server that fails a first small call: `what` it does not do, and how to `start` it."""
    url = server.url
    if failure.stop == "connection":
        return f"no server answers at {url} ({failure.said}); correct server.base_urls, or {start}"
    if failure.said.startswith("status 404") and not url.endswith("/v1"):
        return f"the server at {url} does not know this address ({failure.said}); write {url}/v1 in server.base_urls"
    return f"the server {url} {what} ({failure.said}); correct the fields of server, or {start}"


def user_turn(images: Sequence[ShownImage], text: str) -> Message:
    """A user message with images, followed by text if there is any."""
    return {"role": "user", "content": [*images, {"type": "text", "text": text}] if text else [*images]}


def spent(answer: Answer | Failure) -> Usage:
    """What a call cost."""
    if isinstance(answer, Failure):
        return Usage(failures=1)
    read, sampled, in_cache = answer.read or 0, answer.written or 0, answer.cached
    return Usage(1, 0, read, sampled, in_cache or 0, 0 if in_cache is None else read)


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
    details = counts.get("prompt_tokens_details")
    cached_tokens = details.get("cached_tokens") if isinstance(details, dict) else None
    read, written = counts.get("prompt_tokens"), counts.get("completion_tokens")
    return Answer(choices, read, written, cached_tokens) if choices else None


def _key(config: ServerConfig) -> str:
    if config.api_key_env is None:
        return "no-key-needed"  # the client requires a key; servers without one ignore it
    key = os.environ.get(config.api_key_env, "")
    if not key:
        raise UserError(f"the environment variable {config.api_key_env} is not set; set it to the servers' key")
    return key
