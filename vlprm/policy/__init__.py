"""Policies write text: they continue a solution from a prefix of steps to the end of the policy's turn.

Callers await their requests, so that a policy can answer many of them in one batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar

from vlprm.schema import Problem, Region, Step
from vlprm.zoom.boxes import Size
from vlprm.zoom.policy import ZoomPolicy

T = TypeVar("T")
# Failures of a call that are unrelated to the question.
OUTAGES = frozenset({"timeout", "connection", "server_error"})


@dataclass(frozen=True)
class Turn:
    """`steps` steps that were sampled as one turn, all token ids of the turn and, if they are known, the
    log-probabilities of these ids.

    `stop`: `end` if the policy ended the turn, which its last id says; `zoom` if text after the turn's first zoom was
    dropped, whose ids are still here; `length` if `max_tokens` cut the turn off, perhaps in a step that was dropped."""

    steps: int
    ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    stop: Literal["end", "zoom", "length"] = "end"


@dataclass(frozen=True)
class Request:
    """Continue `steps` of a solution to `problem` with `n` independent samples. If `asked` is given, answer that
    question instead, put in a user's turn after the steps; an empty text asks without a turn.

    `key` identifies the request within a run and, with `seed`, determines what is sampled: equal requests give equal
    texts, whatever else is in the batch. Servers that support it enforce the JSON `schema`. With `one_step`, each
    continuation is one more step and ends where the next would begin.

    `sampled` are the turns in which the last of the steps were sampled. A policy that knows token ids continues from
    exactly these ids, because tokenizing the text again may give others. A server reads the text.

    With `logprobs`, continuations have the log-probability of each sampled id.

    With `between`, two texts that begin alike, nothing is written: the continuation has the probability that the answer
    goes on like the first where they part, normalised over both.
    """

    problem: Problem
    steps: tuple[Step, ...]
    n: int
    key: str
    seed: int
    temperature: float = 1.0
    max_tokens: int = 200
    schema: dict[str, Any] | None = None
    asked: str | None = None
    one_step: bool = False
    sampled: tuple[Turn, ...] = ()
    logprobs: bool = False
    between: tuple[str, str] | None = None


@dataclass(frozen=True)
class Continuation:
    """A sampled continuation. `ended`: the policy ended its turn. `goes_on`: it ended the requested step but not its
    turn. If neither holds, `max_tokens` cut it off, which is *no result*. `failure`: why the call failed, which is also
    no result. `ids`: the sampled token ids, if the policy knows them. `read`: tokens of the prompt, images included,
    that the call read; the first continuation of a call has them all. `logprobs`: the log-probability of each id in the
    distribution that it was drawn from (at the request's temperature, 1 if that is 0; without ids that are never
    sampled), if they were asked for and the policy knows them. `probability`: that of the first of two texts, if it was
    asked for and the policy knows it."""

    text: str
    tokens: int
    ended: bool
    failure: str = ""
    goes_on: bool = False
    ids: tuple[int, ...] = ()
    read: int = 0
    logprobs: tuple[float, ...] = ()
    probability: float | None = None

    @property
    def incomplete(self) -> str:
        """Why this is not a whole answer: its failure, or "length" where the turn did not end. Empty for a whole
        one."""
        return self.failure or ("" if self.ended else "length")


def read_by_first(continuations: Sequence[Continuation], tokens: int) -> list[Continuation]:
    """The continuations of a call that read this many tokens."""
    return [replace(c, read=tokens if i == 0 else 0) for i, c in enumerate(continuations)]


async def all_answers(asked: Iterable[Awaitable[T]]) -> list[T]:
    """Results in order. If one fails, wait for the others (they are already paid for), then raise its error."""
    results = await asyncio.gather(*asked, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results  # type: ignore[return-value]


class Policy(Protocol):
    """A model that continues solutions. `dialect` is how it writes boxes, `zoom` how it zooms."""

    dialect: str
    zoom: ZoomPolicy

    async def sample(self, request: Request) -> list[Continuation]:
        """Return `request.n` continuations, in order."""

    def seen_size(self, problem: Problem, shown: int | Region = 0) -> Size:
        """(width, height) of an image of the problem, or of a region's crop, as the policy sees it: the frame of
        `absolute_resized`."""

    def crop_tokens(self, problem: Problem, region: Region) -> int:
        """Number of image tokens of a region's crop."""
