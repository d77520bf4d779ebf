"""Load a user's task, benchmark or search method by module path. Paths come from the command line, never from data, so
that no data file decides what code runs."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import TypeVar

from vlprm.errors import UserError

T = TypeVar("T")


def known_or_in_module(name: str, known: Mapping[str, T], attribute: str, what: str, example: str) -> T:
    """The known object of that name, or the attribute of the module at that path, which has the known ones' type.

    UserError suggests the nearest name; or says what the module lacks, with `example`, a file to read; or that its
    object has the name of a known one.
    """
    if name in known:
        return known[name]
    if "." in name:
        return _in_module(name, known, attribute, what, example)
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    names = ", ".join(known)
    raise UserError(f"unknown {what} {name!r}; {hint}known: {names}, or the path of a module with a {attribute}")


def _in_module(path: str, known: Mapping[str, T], attribute: str, what: str, example: str) -> T:
    kind = type(next(iter(known.values())))
    found = vars(_module(path, what)).get(attribute)
    if not isinstance(found, kind):
        raise UserError(f"module {path} has no {attribute} (a {kind.__name__}); see {example}")
    own = str(getattr(found, "name", path))
    if known.get(own, found) is not found:
        raise UserError(f"the {what} of {path} has the name of a built-in one, {own!r}; rename it")
    return found


def module_has(path: str, name: str, what: str) -> bool:
    """Whether the module at that path has an attribute `name`. UserError if the module is missing."""
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
