"""Errors that are a user's to mend, and those that name one bad problem or one bad record."""

from __future__ import annotations


class UserError(ValueError):
    """A user's mistake: one sentence that names the thing and the fix. Commands print it without a traceback."""


class ProblemError(UserError):
    """A problem that cannot be used; `failure` is one word to count it by. The run goes on without it."""

    def __init__(self, failure: str, said: str) -> None:
        super().__init__(said)
        self.failure = failure


class RecordError(UserError):
    """A record that cannot be read. `cause` is one word to count by; the message says what is wrong, and the fix."""

    def __init__(self, cause: str, said: str = "") -> None:
        super().__init__(said or cause)
        self.cause = cause
