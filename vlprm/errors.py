"""Errors that name one bad problem or one bad record; the run counts them and goes on."""

from __future__ import annotations


class ProblemError(ValueError):
    """A problem that cannot be used; `failure` is one word to count it by. The run goes on without it."""

    def __init__(self, failure: str, said: str) -> None:
        super().__init__(said)
        self.failure = failure


class RecordError(ValueError):
    """A record that cannot be read. `cause` is one word to count by; the message says what is wrong, and the fix."""

    def __init__(self, cause: str, said: str = "") -> None:
        super().__init__(said or cause)
        self.cause = cause
