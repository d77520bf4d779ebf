"""Batch questions of many coroutines: they queue until no coroutine can continue without an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Batcher(Generic[Q, A]):
    """`answer` answers a batch of questions, in order; `batches` groups the waiting questions by index. If a batch
    fails, its halves are tried separately, so that an error reaches only the coroutine that asked."""

    def __init__(
        self, answer: Callable[[Sequence[Q]], Sequence[A]], batches: Callable[[Sequence[Q]], Sequence[Sequence[int]]]
    ) -> None:
        self._answer_all, self._batches = answer, batches
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._flush: asyncio.Task[None] | None = None

    async def ask(self, question: Q) -> A:
        """Queue a question and return its answer. Raises what `answer` raised for it."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._flush is None:
            self._flush = asyncio.create_task(self._answer_when_all_wait())
        return await future

    async def _answer_when_all_wait(self) -> None:
        known = -1
        while len(self._waiting) != known:  # other coroutines may still be about to ask
            known = len(self._waiting)
            for _ in range(3):
                await asyncio.sleep(0)
        waiting, self._waiting, self._flush = self._waiting, [], None
        for batch in self._batches([question for question, _ in waiting]):
            self._answer([waiting[i] for i in batch])

    def _answer(self, batch: Sequence[tuple[Q, asyncio.Future[A]]]) -> None:
        try:
            answers = self._answer_all([question for question, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                _settle(batch[0][1], error)
                return
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                _settle(future, answer)
            return
        # Outside the handler, because its traceback would keep the failed batch in memory.
        self._answer(batch[: len(batch) // 2])
        self._answer(batch[len(batch) // 2 :])


def _settle(future: asyncio.Future[A], outcome: A | Exception) -> None:
    if future.done():  # the asking coroutine was cancelled
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
