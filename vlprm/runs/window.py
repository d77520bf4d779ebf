"""Run many problems concurrently, with a bounded number in flight, and stop a run."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from vlprm.errors import UserError
from vlprm.runs.folder import DONE
from vlprm.runs.index import FAILED, UNANSWERED, Entry
from vlprm.runs.journal import Records, record_at

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")
EXIT_STOPPED = 130  # conventional exit status after SIGINT


async def in_window(
    items: Iterable[T], work: Callable[[T], Awaitable[R]], limit: int, stopping: asyncio.Event
) -> AsyncIterator[R]:
    """Results in order of completion, with at most `limit` items in flight: whenever one is done, the next one starts.

    When `stopping` is set, nothing more starts, and an item that raises Stopped has no result. An error of one item
    cancels the others and is raised.
    """
    waiting = iter(items)
    running: set[asyncio.Task[R]] = set()
    try:
        while True:
            while len(running) < limit and not stopping.is_set():
                item = next(waiting, None)
                if item is None:
                    break
                running.add(asyncio.ensure_future(work(item)))
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            errors = [task.exception() for task in done]
            for task, error in zip(done, errors, strict=True):
                if error is None:
                    yield task.result()
            for error in errors:
                if error is not None and not isinstance(error, Stopped):
                    raise error
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@contextmanager
def stopped_by_sigint() -> Iterator[asyncio.Event]:
    """An event that the first SIGINT sets; the second ends the process at once. Needs a running event loop."""
    stopping, loop = asyncio.Event(), asyncio.get_running_loop()

    def stop() -> None:
        log.info("stopping: work in progress is finished and kept; interrupt again to end at once")
        loop.remove_signal_handler(signal.SIGINT)
        stopping.set()

    loop.add_signal_handler(signal.SIGINT, stop)
    try:
        yield stopping
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def leave_unless(done: bool) -> None:
    """Exit with the status of an interrupted command if SIGINT stopped a run before it was done."""
    if not done:
        log.info("stopped; run the same command again to continue")
        raise SystemExit(EXIT_STOPPED)


def drop_failed(records: Records) -> None:
    """Remove the records that this run makes again: all if none has a result, because what failed may work now, and
    those that an outage left without answers. Other records with an answer stay, even if it counts as no result."""
    if records.keys and all(FAILED in entry.note for entry in records.entries()):
        records.drop(set(records.keys))
    spoilt = {entry.key for entry in records.entries() if entry.note.get(UNANSWERED)}
    if spoilt:
        log.info("%d of %d records lack answers because servers failed; asking again", len(spoilt), len(records.keys))
        records.path.with_name(DONE).unlink(missing_ok=True)
        records.drop(spoilt)


def refuse_if_all_failed(records: Records, example: Callable[[Mapping[str, Any]], str], what: str, fix: str) -> None:
    """UserError with the causes, and the `example` of the first record, if no record has a result. The records are
    removed then, so that the same command tries again, also with other settings or inputs."""
    counts: Counter[str] = Counter()
    first: Entry | None = None
    for entry in records.entries():
        if FAILED not in entry.note:
            return
        counts.update(entry.note[FAILED])
        first = first or entry
    if first is not None:
        said = example(record_at(records.path, first.place))
        records.drop(set(records.keys))
        raise UserError(f"{what} ({dict(counts)}); the first: {said}; {fix}, then run the same command again")


def tell_unanswered(count: int) -> None:
    """Log how many records lack answers because servers failed."""
    if count:
        log.warning("%d records lack answers because servers failed; run the same command again to ask for them", count)


class Stopped(Exception):
    """The run is stopping: work in progress is finished, but no new requests are made."""
