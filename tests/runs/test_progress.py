"""Progress of a stage, on a terminal and elsewhere. The clock is the test's own."""

import io
import logging
import sys

import pytest
from rich.console import Console

from vlprm.runs.progress import INTERVAL, Pace, progress, span, tracked


class Clock:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("done", "now", "line"),
    [
        (100, 0.0, "100 of 2,000 problems"),
        (100, 5.0, "100 of 2,000 problems"),  # this process has done nothing yet
        (300, 100.0, "300 of 2,000 problems, 2 a second, 14 min left"),
        (110, 600.0, "110 of 2,000 problems, 1 a minute, 31 h 30 min left"),
        (2000, 190.0, "2,000 of 2,000 problems, 10 a second, 3 min"),
    ],
)
def test_a_line_says_the_count_the_rate_of_this_process_and_the_time_left(done: int, now: float, line: str) -> None:
    assert Pace("problems", 2000, 100, 0.0).line(done, now) == line


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min"), (7260, "2 h 1 min")])
def test_a_time_is_said_in_its_largest_units(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_without_a_terminal_a_line_is_logged_at_intervals_and_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    caplog.set_level(logging.INFO)
    with progress("trees", 10, 2, Console(file=io.StringIO()), clock) as reached:
        for done in range(3, 11):
            clock.now += INTERVAL / 3
            reached(done)
    assert [record.message.partition(",")[0] for record in caplog.records] == [
        "5 of 10 trees", "8 of 10 trees", "10 of 10 trees"
    ]  # fmt: skip
    assert caplog.messages[0] == "5 of 10 trees, 12 a minute, 25 s left"


@pytest.mark.parametrize("width", [60, 200])
def test_on_a_terminal_a_bar_is_drawn_and_log_lines_stand_above_it(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, screen = Clock(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    handler = logging.StreamHandler(screen)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [handler])
    console = Console(file=screen, force_terminal=True, width=width, color_system=None)
    with progress("trees", 4, 0, console, clock) as reached:
        clock.now = 8.0
        reached(2)
        root.warning("a word in between")
    assert "2 of 4 trees, 15 a minute, 8 s left" in screen.getvalue()
    assert "a word in between\n" in screen.getvalue()
    assert handler.stream is screen


def test_tracked_items_are_the_items(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert list(tracked("abc", "letters", 3)) == ["a", "b", "c"]
    assert caplog.messages[-1].startswith("3 of 3 letters")
