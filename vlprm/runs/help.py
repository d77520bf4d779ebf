"""What `--help` shows of a flag: its sentence, what it takes in words, and its default."""

from __future__ import annotations

import argparse
import dataclasses
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import jsonargparse
from jsonargparse import typing as checked

TAKES = {
    int: "integer",
    float: "number",
    str: "text",
    Path: "path",
    checked.PositiveInt: "integer above 0",
    checked.NonNegativeInt: "integer, 0 or more",
    checked.PositiveFloat: "number above 0",
    checked.NonNegativeFloat: "number, 0 or more",
    checked.ClosedUnitInterval: "number from 0 to 1",
    checked.OpenUnitInterval: "number between 0 and 1",
}


class Parser(jsonargparse.ArgumentParser):
    """What jsonargparse makes for groups of fields, too, so that their help looks the same."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options, formatter_class=HelpFormatter)


class HelpFormatter(jsonargparse.DefaultHelpFormatter):
    """jsonargparse's, which shows types as Python spells them."""

    def _get_help_string(self, action: argparse.Action) -> str:
        sentence = action.help or ""
        kind = getattr(action, "_typehint", None)
        group = getattr(action, "basetype", None)
        if group is not None:
            plain = getattr(group, "PLAIN", None)
            return f"the same as --{action.dest}.{plain}" if plain else "these fields, as a mapping"
        if kind is None or action.nargs == 0:  # --config, and what prints help
            return sentence
        facts = ["required"] if action.required and action.default is None else []
        facts += filter(None, [takes(kind), default_words(action.default)])
        return f"{sentence} ({'; '.join(facts)})" if facts else sentence


def takes(kind: Any) -> str:
    """What a flag of this type takes; empty where its choices stand beside it."""
    if kind is bool or get_origin(kind) is Literal:
        return ""
    if get_origin(kind) in (Union, types.UnionType):
        kinds = (takes(one) for one in get_args(kind) if one is not types.NoneType)
        return " or ".join(filter(None, kinds))
    if get_origin(kind) in (list, tuple):
        return f"list of {_item(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return f"names, each with {_item(get_args(kind)[1])}"
    if dataclasses.is_dataclass(kind):
        return "text, or fields and their values" if hasattr(kind, "PLAIN") else "fields and their values"
    return TAKES[kind]


def taken_by(kind: Any) -> str:
    """What a flag of this type takes, for a sentence."""
    if kind is bool:
        return "true or false"
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    words = takes(kind)
    if words.startswith(("text", "names", "fields")):
        return words
    return f"an {words}" if words.startswith("integer") else f"a {words}"


def default_words(value: Any) -> str:
    """The default of a flag; empty where there is none to show."""
    if value is None or value in ("", (), {}, argparse.SUPPRESS) or dataclasses.is_dataclass(value):
        return ""
    return f"default: {_value(value)}".replace("%", "%%")


def _item(kind: Any) -> str:
    return " | ".join(map(str, get_args(kind))) if get_origin(kind) is Literal else takes(kind)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(map(_value, value))
    return str(value)
