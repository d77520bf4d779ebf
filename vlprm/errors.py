"""Errors that a user can fix, and errors of a single problem or record."""

from __future__ import annotations


class UserError(ValueError):
    """A user's mistake. The message is one sentence that names the thing and the fix; commands print it without a
    traceback."""


class ProblemError(UserError):
    """A problem that cannot be used; `failure` is a single word for counting. The run continues without it."""

    def __init__(self, failure: str, said: str) -> None:
        super().__init__(said)
        self.failure = failure


class RecordError(UserError):
    """A record that cannot be read. `cause` is a single word for counting; the message names the fault and the fix."""

    def __init__(self, cause: str, said: str = "") -> None:
        super().__init__(said or cause)
        self.cause = cause
