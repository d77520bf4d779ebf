"""A cache that counts bytes, for values whose sizes lie orders of magnitude apart: the pixels of images."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteCache(Generic[K, V]):
    """The values used last, as many as fit into `limit` bytes. `size` gives the bytes that a key and its value hold.

    A value larger than the limit is made each time. For one thread.
    """

    def __init__(self, limit: int, size: Callable[[K, V], int]) -> None:
        self.limit = limit
        self.held = 0
        self._size = size
        self._values: dict[K, V] = {}  # in order of use, the last one last

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value kept for the key, or a new one."""
        if key in self._values:
            value = self._values[key] = self._values.pop(key)
            return value
        value = make()
        size = self._size(key, value)
        if size <= self.limit:
            self._values[key] = value
            self.held += size
        while self.held > self.limit:
            oldest = next(iter(self._values))
            self.held -= self._size(oldest, self._values.pop(oldest))
        return value
