"""What a user's own module adds to the project (a task, a search method): named by its path, by the user and never by a
file, so that no data file decides what code runs."""

from __future__ import annotations

import importlib
from typing import TypeVar

T = TypeVar("T")


def part_of_module(path: str, name: str, kind: type[T], what: str, example: str) -> T:
    """The attribute `name` of the module at that path. ValueError where there is no such module, or where it has none
    of that kind: it says `what` was looked for, and which `example` to read."""
    try:
        found = vars(importlib.import_module(path)).get(name)
    except ModuleNotFoundError as error:
        raise ValueError(f"unknown {what} {path!r}: {error}; give a {what}'s name or the path of a module") from error
    if not isinstance(found, kind):
        raise ValueError(f"module {path} has no {name} (a {kind.__name__}); see {example}")
    return found
