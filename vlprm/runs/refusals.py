"""What is wrong with a value of a flag or recipe, in one sentence, from what jsonargparse says."""

from __future__ import annotations

import difflib
import re
from typing import Any, Literal, get_args, get_origin

from vlprm.runs.flags import Kinds, fields_of, item_of, only
from vlprm.runs.help import taken_by

_KEY = re.compile(r'Parser key "([^"]+)"')
_MISSING = re.compile(r"the following arguments are required: (.+)")
_NO_VALUE = re.compile(r"argument (\S+): expected one argument")
_UNREAD = re.compile(r"[Uu]nrecognized arguments: (.+)")
# How jsonargparse quotes a value of another type than the field's.
_VALUE = re.compile(
    "|".join([
        r"Got value: (?P<a>.*)",
        r"(?:base 10|to float): (?P<b>.*)",
        r"type \w+: (?P<c>.*?) (?:does not conform|not a number)",
        r"PathLike object, not (?P<d>.*)",
        r"Unable to load config [\"'](?P<e>.*)[\"']",
        r"path string: (?P<f>.*)",
        r"Given value: (?P<g>.*)",
    ])
)  # fmt: skip


def sentence(said: str, kinds: Kinds) -> str:
    """The sentence for an error of jsonargparse, which says the key, the value, and what the field takes."""
    line = " ".join(said.split())
    if missing := _MISSING.fullmatch(line):
        return _missing(missing[1].split(", "), kinds)
    if flag := _NO_VALUE.fullmatch(line):
        return f"{flag[1]} has no value; write {flag[1]} followed by a value"
    if words := _UNREAD.fullmatch(line):
        return f"{words[1]!r} belongs to no flag; write --flag value, and quote a value that has spaces"
    keys = list(dict.fromkeys(_KEY.findall(said)))
    value = next((match[match.lastgroup or 0] for match in map(_VALUE.search, said.splitlines()) if match), None)
    kind = _kind(keys, kinds) if keys else None
    if kind is None or value is None:
        return _own_words(said)
    return _wrong(".".join(keys), kind, value.strip("'\""))


def _own_words(said: str) -> str:
    """What a config said itself; where a field may be None, why its value is not of the other type."""
    lines = [line.strip() for line in said.splitlines()]
    reasons = [line[2:] for line in lines if line.startswith("- ") and "NoneType" not in line]
    return re.sub(r"Parser key \S+ ?|Problem with given class_path '\S+': ?", "", " ".join(reasons or lines)).strip()


def _missing(names: list[str], kinds: Kinds) -> str:
    flags = [f"--{name.removesuffix('.checkpoint')}" for name in names]
    listed = ", ".join(flags[:-1]) + " and " * (len(flags) > 1) + flags[-1]
    gap = "are missing; give them as flags" if len(flags) > 1 else "is missing; give it as a flag"
    return f"{listed} {gap}, or in the recipe of --config"


def _kind(keys: list[str], kinds: Kinds) -> Any:
    """The type of a field of a field; None if it is not known."""
    kind = kinds.get(keys[0])
    for key in ".".join(keys[1:]).split(".") if keys[1:] else ():
        kind = fields_of(item_of(kind) or kind).get(key)
    return kind


def _wrong(name: str, kind: Any, value: str) -> str:
    if (parts := fields_of(kind)) and not hasattr(only(kind), "PLAIN"):
        return f"{name} is a group, not {value}; set its fields, such as {name}.{next(iter(parts))}"
    if parts := fields_of(item := item_of(kind)):
        return f"{name} takes items with fields, not {value}; write {name}: [{{{next(iter(parts))}: ...}}]"
    choices = next((get_args(one) for one in (only(kind), item) if get_origin(one) is Literal), ())
    nearest = difflib.get_close_matches(value, map(str, choices), n=1)
    return f"{name} takes {taken_by(kind)}, not {value}" + (f"; did you mean {nearest[0]}?" if nearest else "")
