"""Caches with a limit in bytes, for values whose sizes differ by orders of magnitude: the pixels of images."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import TypeVar

from cachetools import LRUCache

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def cached(cache: LRUCache[K, V], key: K, make: Callable[[], V]) -> V:
    """The cached value of the key, or a new one. A value larger than the whole cache is made each time."""
    if key in cache:
        return cache[key]
    value = make()
    with suppress(ValueError):  # larger than the whole cache
        cache[key] = value
    return value
