"""Caches with a limit in bytes, for values whose sizes differ by orders of magnitude: the pixels of images. Threads may
share them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import TypeVar

from cachetools import LRUCache

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
_LOCK = threading.Lock()  # held for look-ups only, so that no thread waits while another makes a value


def cached(cache: LRUCache[K, V], key: K, make: Callable[[], V]) -> V:
    """The cached value of the key, or a new one. A value larger than the whole cache is made each time."""
    with _LOCK, suppress(KeyError):
        return cache[key]
    value = make()
    with _LOCK, suppress(ValueError):  # larger than the whole cache
        cache[key] = value
    return value
