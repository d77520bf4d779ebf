"""Shards of a run: its part for one of several machines."""

from __future__ import annotations

from vlprm.errors import UserError


def shard_of(shard: str) -> tuple[int, int]:
    """(i, n) of a shard "i/n". UserError unless 0 <= i < n."""
    i, _, n = shard.partition("/")
    if not (i.isdecimal() and n.isdecimal() and int(i) < int(n)):
        raise UserError(f"shard {shard!r} is not i/n with i from 0 to n-1, such as 0/4")
    return int(i), int(n)
