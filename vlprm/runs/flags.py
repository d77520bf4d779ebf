"""Prepare the command line and the recipes for jsonargparse.

A list takes a single value as a list of one, a boolean flag without a value is true, and an unknown name is an error
that suggests the nearest known one.
"""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import jsonargparse
import yaml

from vlprm.errors import UserError
from vlprm.runs.recipes import recipe

Kinds = Mapping[str, Any]  # type of each field by its dotted name; None for a group of fields


def kinds_of(parser: jsonargparse.ArgumentParser) -> Kinds:
    """The type of each field of a parser."""
    return {
        action.dest: getattr(action, "_typehint", None)
        for action in parser._actions
        if action.dest not in ("help", "config", "print_config")
    }


def taken(argv: Sequence[str], kinds: Kinds) -> list[str]:
    """The arguments with each flag as `--name=value` and the recipes first, so that flags win in any order. UserError
    names an unknown flag, an unknown key of a recipe, or a missing recipe."""
    files: list[str] = []
    flags: list[str] = []
    for flag, value in _pairs(argv, kinds):
        if flag == "--config":
            file = recipe(_given(flag, value))
            _check_keys(file, kinds)
            files.append(f"--config={file}")
            continue
        name = flag.removeprefix("--")
        if flag.startswith("--") and not _is_known(name, kinds):
            raise UserError(_unknown(f"flag {flag}", name, kinds))
        flags.append(flag if value is None else f"{flag}={_as_list(value, kinds.get(name))}")
    return files + flags


def _pairs(argv: Sequence[str], kinds: Kinds) -> Iterator[tuple[str, str | None]]:
    """Yield each flag with its value, or None without one. A word that belongs to no flag is yielded alone."""
    words = list(argv)
    while words:
        flag, equals, value = words.pop(0).partition("=")
        if not flag.startswith("--") or equals:
            yield (flag, value) if flag.startswith("--") else (flag + equals + value, None)
        elif words and not words[0].startswith("--") and flag not in ("--help", "--print_config"):
            yield flag, words.pop(0)
        else:
            yield flag, "true" if kinds.get(flag.removeprefix("--")) is bool else None


def _given(flag: str, value: str | None) -> str:
    if not value:
        raise UserError(f"{flag} has no value; give the name of a recipe, such as demo/prm, or a file")
    return value


def _as_list(value: str, kind: Any) -> str:
    """A single value of a list field as a list."""
    item = _item_of(kind)
    if item is None or value.lstrip().startswith("["):
        return value
    return json.dumps([value]) if item in (str, Path) else f"[{value}]"


def _item_of(kind: Any) -> Any:
    """The type of a list's items; None if the field is not, or not only, a list."""
    if get_origin(kind) in (Union, types.UnionType):
        kinds = [one for one in get_args(kind) if one is not types.NoneType]
        return _item_of(kinds[0]) if len(kinds) == 1 else None
    return get_args(kind)[0] if get_origin(kind) in (list, tuple) else None


def _check_keys(path: Path, kinds: Kinds) -> None:
    try:
        keys = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(keys, dict):
        raise UserError(f"{path} is not a recipe; write `key: value` lines")
    for name in _dotted(keys, kinds):
        if not _is_known(name, kinds):
            raise UserError(_unknown(f"key {name!r} in {path}", name, kinds))


def _dotted(keys: dict[Any, Any], kinds: Kinds, before: str = "") -> Iterator[str]:
    for key, value in keys.items():
        name = f"{before}{key}"
        if isinstance(value, dict) and kinds.get(name, ...) is None:
            yield from _dotted(value, kinds, f"{name}.")
        else:
            yield name


def _is_known(name: str, kinds: Kinds) -> bool:
    """Whether a name is a field, a part of a group, or a part of a field, which jsonargparse checks."""
    if name in kinds or name in ("help", "print_config"):
        return True
    above = name.rpartition(".")[0]
    return bool(above) and (kinds.get(above) is not None or (above not in kinds and _is_known(above, kinds)))


def _unknown(what: str, name: str, kinds: Kinds) -> str:
    nearest = difflib.get_close_matches(name, kinds, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(kinds)}"
    return f"unknown {what}; {hint}"
