"""Answers of a model with progress over them."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from itertools import count
from typing import TypeVar

from vlprm.policy import all_answers
from vlprm.runs.progress import progress

T = TypeVar("T")


async def all_tracked(asked: Iterable[Awaitable[T]], what: str) -> list[T]:
    """`vlprm.policy.all_answers` with a progress bar; `what` names the answers."""
    waiting, done = list(asked), count(1)
    with progress(what, len(waiting)) as reached:

        async def counted(answer: Awaitable[T]) -> T:
            try:
                return await answer
            finally:
                reached(next(done))

        return await all_answers(map(counted, waiting))
