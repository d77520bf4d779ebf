"""Batch questions of many coroutines, and answer them in a thread, so that servers' answers arrive in the meantime.

Questions queue until no coroutine can continue without an answer, and while the batch before them is answered.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

Q = TypeVar("Q")
A = TypeVar("A")
_LOCK = threading.Lock()  # the models of a process share its processors and its memory: one of them works at a time
# Models take turns in the order in which they were asked. A batch is chosen when its turn comes, so that what is in it
# does not depend on how long the batch before it took, and a run can be repeated to the last bit.
_TURNS: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


class Batcher(Generic[Q, A]):
    """`answer` answers a batch of questions, in order; `first_batch` chooses which waiting questions are answered next,
    by index. If a batch fails, its halves are tried separately, so that an error reaches only the coroutine that
    asked."""

    def __init__(
        self, answer: Callable[[Sequence[Q]], Sequence[A]], first_batch: Callable[[Sequence[Q]], Sequence[int]]
    ) -> None:
        self._answer_all, self._first_batch = answer, first_batch
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._work: asyncio.Task[None] | None = None

    async def ask(self, question: Q) -> A:
        """Queue a question and return its answer. Raises what `answer` raised for it."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._work is None:
            self._work = asyncio.create_task(self._answer_waiting())
        return await future

    async def _answer_waiting(self) -> None:
        try:
            while self._waiting:
                async with _turn():
                    if await self._all_have_asked():
                        await self._answer(self._taken())
        finally:  # also if the event loop ends
            self._work = None

    def _taken(self) -> list[tuple[Q, asyncio.Future[A]]]:
        batch = [self._waiting[i] for i in self._first_batch([question for question, _ in self._waiting])]
        taken = {id(future) for _, future in batch}
        self._waiting = [one for one in self._waiting if id(one[1]) not in taken]
        return batch

    async def _all_have_asked(self) -> int:
        """Wait until no coroutine asks any more; the number of questions that still need an answer."""
        known = -1
        while len(self._waiting) != known:  # other coroutines may still be about to ask
            known = len(self._waiting)
            for _ in range(3):
                await asyncio.sleep(0)
        self._waiting = [one for one in self._waiting if not one[1].done()]  # without coroutines that were cancelled
        return len(self._waiting)

    async def _answer(self, batch: Sequence[tuple[Q, asyncio.Future[A]]]) -> None:
        try:
            answers = await asyncio.to_thread(self._locked, [question for question, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                _settle(batch[0][1], error)
                return
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                _settle(future, answer)
            return
        # Outside the handler, because its traceback would keep the failed batch in memory.
        await self._answer(batch[: len(batch) // 2])
        await self._answer(batch[len(batch) // 2 :])

    def _locked(self, questions: Sequence[Q]) -> Sequence[A]:
        with _LOCK:
            return self._answer_all(questions)


def _turn() -> asyncio.Lock:
    return _TURNS.setdefault(asyncio.get_running_loop(), asyncio.Lock())


def _settle(future: asyncio.Future[A], outcome: A | Exception) -> None:
    if future.done():  # the asking coroutine was cancelled
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
