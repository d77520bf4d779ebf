"""Plain best-of-N at the token cost of another method: the first candidates of a pool that the tokens pay for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate


def tokens_of_first(written: Sequence[int], read: Sequence[int]) -> list[int]:
    """Tokens of the first 1, 2, ... candidates of a pool. `written`: tokens that the policy wrote per candidate;
    `read`: tokens that the scorer read for it and that earlier candidates had not already paid for."""
    return list(accumulate(w + r for w, r in zip(written, read, strict=True)))


def affordable(first: Sequence[int], tokens: int) -> int:
    """Number of candidates that `tokens` pay for, at least one; `first` comes from `tokens_of_first`."""
    return max(1, bisect_right(first, tokens))
