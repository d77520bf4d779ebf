"""Load a user's task, benchmark or search method by module path. Paths come from the command line, never from data, so
that no data file decides what code runs."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import TypeVar

from vlprm.errors import UserError

T = TypeVar("T")


def part_of_module(path: str, name: str, kind: type[T], what: str, example: str) -> T:
    """The attribute `name` of the module at that path. UserError if there is no such module or no attribute of that
    type; `what` and `example` (a file to read) go into the message."""
    found = vars(_module(path, what)).get(name)
    if not isinstance(found, kind):
        raise UserError(f"module {path} has no {name} (a {kind.__name__}); see {example}")
    return found


def module_has(path: str, name: str, what: str) -> bool:
    """Whether the module at that path has an attribute `name`. UserError if there is no such module."""
    return name in vars(_module(path, what))


def _module(path: str, what: str) -> ModuleType:
    if not all(part.isidentifier() for part in path.split(".")):
        raise UserError(f"unknown {what} {path!r}; name a module as Python imports it, such as mine.{what}s")
    here = os.getcwd()
    if here not in sys.path:  # the console script does not search it; last, so that no file there hides a package
        sys.path.append(here)
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        raise UserError(f"unknown {what} {path!r}: {error}; give a {what}'s name or the path of a module") from error
