"""What reads an answer of one type in a text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Read = Callable[[str], str | None]


@dataclass(frozen=True)
class Reader:
    """`whole` reads a text that is nothing but the answer, `leading` one that opens with it, `stated` a sentence."""

    whole: Read
    leading: Read
    stated: Read
