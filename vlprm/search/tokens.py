"""Plain best-of-N on as many tokens as another method took: the first candidates of a pool that these pay for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate


def tokens_of_first(written: Sequence[int], read: Sequence[int]) -> list[int]:
    """Tokens of the first 1, 2, ... candidates of a pool, of each of which the policy wrote so many and the scorer read
    so many that it had not read for those before (`ScoredSolution.read`)."""
    return list(accumulate(w + r for w, r in zip(written, read, strict=True)))


def affordable(first: Sequence[int], tokens: int) -> int:
    """How many candidates so many tokens pay for, one at the least; `first` are those of `tokens_of_first`."""
    return max(1, bisect_right(first, tokens))
