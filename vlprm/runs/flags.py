"""Prepare the command line and the recipes for jsonargparse.

A single value for a list becomes a list of one, a boolean flag without a value is true, and an unknown name is an error
that suggests the nearest known one. A plain text for a group of fields sets the field that the group names in `PLAIN`:
`policy: builtin/policy` is short for `policy: {checkpoint: builtin/policy}`.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import jsonargparse
import yaml

from vlprm.errors import UserError
from vlprm.runs.recipes import recipe

Kinds = Mapping[str, Any]  # type of each field by its dotted name; a dataclass for a group of fields


def kinds_of(parser: jsonargparse.ArgumentParser) -> Kinds:
    """The type of each field of a parser."""
    kinds: dict[str, Any] = {}
    for action in parser._actions:
        if action.dest not in ("help", "config", "print_config"):
            kind = getattr(action, "_typehint", None) or getattr(action, "basetype", None)
            kinds |= {action.dest: None} if action.dest.endswith(".help") else _with_parts(action.dest, kind)
    return kinds


def _with_parts(name: str, kind: Any) -> dict[str, Any]:
    """A field and, if its type is a dataclass, the fields of that group."""
    group = _only(kind)
    if not dataclasses.is_dataclass(group):
        return {name: kind}
    hints = get_type_hints(group)
    parts = (_with_parts(f"{name}.{f.name}", hints[f.name]) for f in dataclasses.fields(group))
    return {name: group} | {inner: of for part in parts for inner, of in part.items()}


def taken(argv: Sequence[str], kinds: Kinds) -> list[str]:
    """The arguments, with each flag as `--name=value` and recipes first, so that flags override them in any order.
    UserError for an unknown flag or recipe key, or a missing recipe."""
    files: list[str] = []
    flags: list[str] = []
    for flag, value in _pairs(argv, kinds):
        if flag == "--config":
            file = recipe(_given(flag, value))
            files.append(f"--config={json.dumps(_written_out(_keys_of(file, kinds), kinds))}")
            continue
        name = flag.removeprefix("--")
        if flag.startswith("--") and not _is_known(name, kinds):
            raise UserError(_unknown(f"flag {flag}", name, kinds))
        flags.append(flag if value is None else _full(flag, value, kinds.get(name)))
    return files + flags


def _full(flag: str, value: str, kind: Any) -> str:
    """A flag with its value. A single value for a list becomes a list of one; a plain text for a group sets the
    group's `PLAIN` field."""
    plain, item = getattr(kind, "PLAIN", None), _item_of(kind)
    if plain is not None and not value.lstrip().startswith("{") and value != "null":
        return f"{flag}.{plain}={value}"
    if hasattr(item, "PLAIN"):
        return f"{flag}={json.dumps(_whole(_from_yaml(flag, value), kind))}"
    if item is None or value.lstrip().startswith("["):
        return f"{flag}={value}"
    return f"{flag}={json.dumps([value]) if item in (str, Path) else f'[{value}]'}"


def _from_yaml(name: str | Path, text: str | bytes) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{name} is not YAML: {' '.join(str(error).split())}") from error


def _written_out(keys: dict[str, Any], kinds: Kinds, before: str = "") -> dict[str, Any]:
    """The keys of a recipe, with plain texts for groups expanded into groups."""
    written: dict[str, Any] = {}
    for key, value in keys.items():
        kind = kinds.get(f"{before}{key}")
        is_group = isinstance(value, dict) and dataclasses.is_dataclass(kind)
        written[key] = _written_out(value, kinds, f"{before}{key}.") if is_group else _whole(value, kind)
    return written


def _whole(value: Any, kind: Any) -> Any:
    plain, item = getattr(kind, "PLAIN", None), _item_of(kind)
    if plain is not None and isinstance(value, str):
        return {plain: value}
    if hasattr(item, "PLAIN") and value is not None:
        return [_whole(one, item) for one in (value if isinstance(value, list) else [value])]
    return value


def _pairs(argv: Sequence[str], kinds: Kinds) -> Iterator[tuple[str, str | None]]:
    """Yield each flag with its value (None if it has none). A word without a flag is yielded alone."""
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
        raise UserError(f"{flag} has no value; pass the name of a recipe, such as demo/prm, or a file")
    return value


def _item_of(kind: Any) -> Any:
    """The item type of a list field; None for any other field."""
    kind = _only(kind)
    return get_args(kind)[0] if get_origin(kind) in (list, tuple) else None


def _only(kind: Any) -> Any:
    """The type without None, for an optional field; any other type unchanged."""
    if get_origin(kind) in (Union, types.UnionType):
        kinds = [one for one in get_args(kind) if one is not types.NoneType]
        return kinds[0] if len(kinds) == 1 else kind
    return kind


def _keys_of(path: Path, kinds: Kinds) -> dict[str, Any]:
    keys = _from_yaml(path, path.read_bytes()) or {}
    if not isinstance(keys, dict):
        raise UserError(f"{path} is not a recipe; write `key: value` lines")
    for name in _dotted(keys, kinds):
        if not _is_known(name, kinds):
            raise UserError(_unknown(f"key {name!r} in {path}", name, kinds))
    return keys


def _dotted(keys: dict[Any, Any], kinds: Kinds, before: str = "") -> Iterator[str]:
    for key, value in keys.items():
        name = f"{before}{key}"
        if isinstance(value, dict) and dataclasses.is_dataclass(kinds.get(name)):
            yield from _dotted(value, kinds, f"{name}.")
        else:
            yield name


def _is_known(name: str, kinds: Kinds) -> bool:
    """Whether a name is a field or a key of a dict field. jsonargparse checks dict keys."""
    if name in kinds or name in ("help", "print_config"):
        return True
    above = name.rpartition(".")[0]
    if above in kinds:
        return get_origin(_only(kinds[above])) is dict
    return bool(above) and _is_known(above, kinds)


def _unknown(what: str, name: str, kinds: Kinds) -> str:
    above, _, part = name.rpartition(".")
    if dataclasses.is_dataclass(_item_of(kinds.get(above))):
        return f"unknown {what}; {above} is a list, whose items have fields: {above}: [{{{part}: ...}}]"
    known = [name for name in kinds if not name.endswith(".help")]
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known)}"
    return f"unknown {what}; {hint}"
