"""Prepare the command line and the recipes for jsonargparse.

A single value for a list becomes a list of one, a boolean flag without a value is true. An unknown name at any depth is
an error that suggests the nearest known one, and so is null for a field that needs a value. A plain text for a group of
fields sets the field that the group names in `PLAIN`: `policy: builtin/policy` is short for
`policy: {checkpoint: builtin/policy}`.
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
from vlprm.runs.help import taken_by
from vlprm.runs.recipes import recipe

FEW = 20  # as many names fit into a sentence
Kinds = Mapping[str, Any]  # type of each field by its dotted name


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
    parts = (_with_parts(f"{name}.{part}", of) for part, of in fields_of(kind).items())
    return {name: kind} | {inner: of for part in parts for inner, of in part.items()}


def fields_of(kind: Any) -> dict[str, Any]:
    """The type of each field of a dataclass, which may be optional; none for any other type."""
    group = only(kind)
    if not dataclasses.is_dataclass(group):
        return {}
    hints = get_type_hints(group)
    return {f.name: hints[f.name] for f in dataclasses.fields(group)}


def taken(argv: Sequence[str], kinds: Kinds) -> list[str]:
    """The arguments, with each flag as `--name=value` and recipes first, so that flags override them in any order.
    UserError for an unknown flag or recipe key, or a missing recipe."""
    files: list[str] = []
    flags: list[str] = []
    for flag, value in _pairs(argv, kinds):
        if flag == "--config":
            file = recipe(_given(flag, value))
            files.append(f"--config={json.dumps(_keys_of(file, kinds))}")
            continue
        name = flag.removeprefix("--")
        if flag.startswith("--") and not _is_known(name, kinds):
            raise UserError(_unknown(f"flag {flag}", name, kinds))
        flags.append(flag if value is None else _full(flag, value, kinds.get(name)))
    return files + flags


def _full(flag: str, value: str, kind: Any) -> str:
    """A flag with its value. A single value for a list becomes a list of one; a plain text for a group sets the
    group's `PLAIN` field."""
    name = flag.removeprefix("--")
    if value == "null" and only(kind) is not str:
        _check(None, kind, name, flag)
        return f"{flag}=null"
    plain, item = getattr(only(kind), "PLAIN", None), item_of(kind)
    is_mapping = value.lstrip().startswith("{")
    if plain is not None and not is_mapping:
        return f"{flag}.{plain}={value}"
    if dataclasses.is_dataclass(item) or (is_mapping and fields_of(kind)):
        whole = _whole(_from_yaml(flag, value), kind)
        _check(whole, kind, name, flag)
        return f"{flag}={json.dumps(whole)}"
    if item is None or value.lstrip().startswith("["):
        return f"{flag}={value}"
    return f"{flag}={json.dumps([value]) if item in (str, Path) else f'[{value}]'}"


class _Loader(yaml.SafeLoader):
    """YAML's, which keeps the last of two equal keys without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1} has the key {key.value!r} again")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _from_yaml(name: str | Path, text: str | bytes) -> Any:
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{name} is not YAML: {' '.join(str(error).split())}") from error


def _whole(value: Any, kind: Any) -> Any:
    """A value of a recipe, with plain texts for groups expanded into groups and single values for lists into lists."""
    plain, item, parts = getattr(only(kind), "PLAIN", None), item_of(kind), fields_of(kind)
    if plain is not None and isinstance(value, str):
        return {plain: value}
    if item is not None and value is not None:
        return [_whole(one, item) for one in (value if isinstance(value, list) else [value])]
    if parts and isinstance(value, dict):
        return {key: _whole(of, parts.get(key)) for key, of in value.items()}
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
            yield flag, "true" if only(kinds.get(flag.removeprefix("--"))) is bool else None


def _given(flag: str, value: str | None) -> str:
    if not value:
        raise UserError(f"{flag} has no value; pass the name of a recipe, such as demo/prm, or a file")
    return value


def item_of(kind: Any) -> Any:
    """The item type of a list field; None for any other field."""
    kind = only(kind)
    return get_args(kind)[0] if get_origin(kind) in (list, tuple) else None


def only(kind: Any) -> Any:
    """The type without None, for an optional field; any other type unchanged."""
    if get_origin(kind) in (Union, types.UnionType):
        kinds = [one for one in get_args(kind) if one is not types.NoneType]
        return kinds[0] if len(kinds) == 1 else kind
    return kind


def _keys_of(path: Path, kinds: Kinds) -> dict[str, Any]:
    """The keys of a recipe, written out. UserError for an unknown key, or null for a field that needs a value."""
    keys = _from_yaml(path, path.read_bytes()) or {}
    if not isinstance(keys, dict):
        raise UserError(f"{path} is not a recipe; write `key: value` lines")
    written = {}
    for key, value in keys.items():
        if not _is_known(str(key), kinds):
            raise UserError(_unknown(f"key {key!r} in {path}", str(key), kinds))
        written[key] = _whole(value, kinds.get(key))
        _check(written[key], kinds.get(key), key, f"key {key!r} in {path}")
    return written


def _check(value: Any, kind: Any, name: str, place: str) -> None:
    """UserError for an unknown key at any depth of a value, or for null where a value is needed."""
    if value is None:
        if kind is not None and only(kind) is kind:
            raise UserError(f"{name} cannot be null; it takes {taken_by(kind)}")
        return
    item, parts = item_of(kind), fields_of(kind)
    if item is not None and isinstance(value, list):
        for one in value:
            _check(one, item, name, place)
    if parts and isinstance(value, dict):
        for key, of in value.items():
            inner = f"{name}.{key}"
            if key not in parts:
                where = f"key {inner!r} in {place.rpartition(' in ')[2]}"
                raise UserError(f"unknown {where}; {_hint(inner, [f'{name}.{part}' for part in parts])}")
            _check(of, parts[key], inner, place)


def _is_known(name: str, kinds: Kinds) -> bool:
    """Whether a name is a field or a key of a dict field. jsonargparse checks dict keys."""
    if name in kinds or name in ("help", "print_config"):
        return True
    above = name.rpartition(".")[0]
    if above in kinds:
        return get_origin(only(kinds[above])) is dict
    return bool(above) and _is_known(above, kinds)


def _unknown(what: str, name: str, kinds: Kinds) -> str:
    above, _, part = name.rpartition(".")
    if dataclasses.is_dataclass(item_of(kinds.get(above))):
        return f"unknown {what}; {above} is a list, whose items have fields: {above}: [{{{part}: ...}}]"
    return f"unknown {what}; {_hint(name, [name for name in kinds if not name.endswith('.help')])}"


def _hint(name: str, known: Sequence[str]) -> str:
    """The nearest known name, or the field of a group with the same last part; without one, the known names."""
    last = [one for one in known if one.rpartition(".")[2] == name.rpartition(".")[2]]
    nearest = [*difflib.get_close_matches(name, known, n=1), *last]
    if nearest:
        return f"did you mean {nearest[0]!r}?"
    return f"known: {', '.join(known)}" if len(known) <= FEW else "`--help` lists the flags"
