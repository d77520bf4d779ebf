"""Engines write text. An engine continues a solution from a prefix of steps to the end of the policy's turn.

Whoever samples awaits; an engine is free to answer many requests in one batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from vlprm.schema import Problem, Region, Step
from vlprm.zoom.boxes import Size
from vlprm.zoom.policy import ZoomPolicy

T = TypeVar("T")
UNANSWERED = frozenset(
    {"timeout", "connection", "server_error"}
)  # failures of a call that say nothing about what was asked


@dataclass(frozen=True)
class Turn:
    """So many steps that were sampled as one turn, the last of them a zoom that ended it, and the ids of the turn."""

    steps: int
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Request:
    """Continue `steps` of a solution to `problem`, `n` times, each with its own stream of chance; or, if something is
    `asked`, answer that, which stands in a user's turn after them; an empty text asks without a turn.

    `key` names the request within a run and, with `seed`, decides what is sampled: equal requests give equal texts,
    whatever else is in the batch. A server that can is held to the JSON `schema`; others are not. With `one_step`, each
    continuation is one more step, and ends where the next one would begin.

    `sampled` are the turns in which the last of the steps were sampled. An engine that knows ids goes on from these
    very ids: the tokenizer may make others of the same text. A server reads the text.
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


@dataclass(frozen=True)
class Continuation:
    """What was written. `ended` says that the policy ended its turn; `goes_on`, that it ended the one step that was
    asked for and not its turn. Where neither is so, `max_tokens` cut it off: that is a *no result*. So is a `failure`,
    which says why nothing was written: the call failed, not the policy. `ids` are what was sampled, where the engine
    knows them."""

    text: str
    tokens: int
    ended: bool
    failure: str = ""
    goes_on: bool = False
    ids: tuple[int, ...] = ()


async def all_answers(asked: Iterable[Awaitable[T]]) -> list[T]:
    """Results in order. Where one fails, its error is raised when the others have ended: they are paid for."""
    results = await asyncio.gather(*asked, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results  # type: ignore[return-value]


class Policy(Protocol):
    """What can continue a solution. `dialect` and `zoom` are how its policy writes boxes, and zooms."""

    dialect: str
    zoom: ZoomPolicy

    async def sample(self, request: Request) -> list[Continuation]:
        """`request.n` continuations, in order."""

    def seen_size(self, problem: Problem, shown: int | Region = 0) -> Size:
        """(width, height) of an image of the problem, or of the crop of a region, as the policy sees it: the frame of
        `absolute_resized`."""

    def crop_tokens(self, problem: Problem, region: Region) -> int:
        """Tokens of the image that shows a region's crop."""
