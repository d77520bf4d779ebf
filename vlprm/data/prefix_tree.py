"""Solutions as a tree in which equal beginnings are one path."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


def prefix_tree(sequences: Iterable[Sequence[K]]) -> tuple[list[tuple[int, ...]], list[int], list[K]]:
    """Merge sequences. Returns the nodes of each sequence, the parent of each node (-1: the root; parents come first),
    and the key of each node."""
    place: dict[tuple[int, K], int] = {}
    paths = []
    for sequence in sequences:
        nodes = [-1]
        for key in sequence:
            nodes.append(place.setdefault((nodes[-1], key), len(place)))
        paths.append(tuple(nodes[1:]))
    return paths, [parent for parent, _ in place], [key for _, key in place]
