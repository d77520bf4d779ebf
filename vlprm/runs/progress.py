"""Progress of a long stage: a live bar on a terminal; elsewhere, log lines at intervals.

    with progress("problems", total, done=len(records.keys)) as reached:
        ...
        reached(len(records.keys))

Both say the count, the rate of this process and the time left.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

log = logging.getLogger(__name__)

T = TypeVar("T")
Clock = Callable[[], float]
Reached = Callable[[int], None]  # is told how many items are done in all
INTERVAL = 15.0  # seconds between two log lines


@dataclass(frozen=True)
class Pace:
    """How fast items are done: `first` of `total` were done when this process `started`."""

    what: str
    total: int
    first: int
    started: float

    def line(self, done: int, now: float) -> str:
        """The count, the rate and the time left."""
        said = f"{done:,} of {self.total:,} {self.what}"
        new, seconds = done - self.first, now - self.started
        if new <= 0 or seconds <= 0:
            return said
        rate = new / seconds
        said += f", {rate:.3g} a second" if rate >= 1 else f", {60 * rate:.3g} a minute"
        return f"{said}, {span((self.total - done) / rate)} left" if done < self.total else f"{said}, {span(seconds)}"


def span(seconds: float) -> str:
    """A time in its largest units, such as 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


@contextmanager
def progress(
    what: str, total: int, done: int = 0, console: Console | None = None, clock: Clock = time.monotonic
) -> Iterator[Reached]:
    """Show progress from `done` to `total` items while the block runs, which calls what it gets with each new count."""
    console = Console(stderr=True) if console is None else console
    pace = Pace(what, total, done, clock())
    with _bar(pace, console, clock) if console.is_terminal else _lines(pace, clock) as reached:
        yield reached


def tracked(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield the items and show progress over them."""
    with progress(what, total) as reached:
        for done, item in enumerate(items, 1):
            yield item
            reached(done)


@contextmanager
def _bar(pace: Pace, console: Console, clock: Clock) -> Iterator[Reached]:
    columns = BarColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=console) as bar, _logged_above_the_bar():
        task = bar.add_task(pace.line(pace.first, clock()), total=pace.total, completed=pace.first)
        yield lambda done: bar.update(task, completed=done, description=pace.line(done, clock()))


@contextmanager
def _lines(pace: Pace, clock: Clock) -> Iterator[Reached]:
    last = pace.started

    def reached(done: int) -> None:
        nonlocal last
        now = clock()
        if now - last >= INTERVAL or done >= pace.total:
            last = now
            log.info("%s", pace.line(done, now))

    yield reached


@contextmanager
def _logged_above_the_bar() -> Iterator[None]:
    """Let log lines go through the stream that the bar has put in place of stderr, which prints them above it."""
    handlers = [handler for handler in logging.getLogger().handlers if type(handler) is logging.StreamHandler]
    streams = [handler.setStream(sys.stderr) for handler in handlers]
    try:
        yield
    finally:
        for handler, stream in zip(handlers, streams, strict=True):
            if stream is not None:
                handler.setStream(stream)
