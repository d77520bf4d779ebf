"""The interface of readers that find an answer of one type in a text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Read = Callable[[str], str | None]


@dataclass(frozen=True)
class Reader:
    """`whole` reads a text that is only the answer, `leading` a text that opens with it, `stated` a sentence that
    states it, and `left` a text that excludes all other answers."""

    whole: Read
    leading: Read
    stated: Read
    left: Read = lambda text: None
