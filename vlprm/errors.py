"""Errors that a user can fix, and errors of a single problem or record."""

from __future__ import annotations


class UserError(ValueError):
    """A user's mistake. The message is one sentence that names the thing and the fix; commands print it without a
    traceback."""


class ProblemError(UserError):
    """A problem that cannot be used; `cause` is a single word for counting. The run continues without it."""

    def __init__(self, cause: str, said: str) -> None:
        super().__init__(said)
        self.cause = cause


class RecordError(UserError):
    """A record that cannot be read. `cause` is a single word for counting; the message names the fault and the fix."""

    def __init__(self, cause: str, said: str = "") -> None:
        super().__init__(said or cause)
        self.cause = cause


def hub_refusal(name: str, error: Exception) -> str:
    """Why a name that is not a folder did not come from the Hub either, with the fix."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    folder = "name a folder"
    if constants.HF_HUB_OFFLINE:
        return f"{name} is not in the cache of the Hub, and HF_HUB_OFFLINE is set; unset it, or {folder}"
    if isinstance(error, GatedRepoError):
        return f"{name} is gated on the Hub; accept its terms there and log in with `hf auth login`, or {folder}"
    if isinstance(error, RepositoryNotFoundError | HFValidationError) or type(error).__name__ == "DatasetNotFoundError":
        return f"the Hub has no {name} that you may read; correct the name, log in with `hf auth login`, or {folder}"
    return f"the Hub cannot be reached for {name} ({type(error).__name__}); try again later, or {folder}"
