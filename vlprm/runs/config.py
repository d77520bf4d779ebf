"""One way to configure every command: a frozen dataclass, a YAML file, flags that override it.

    python -m train.prm --config configs/demo/prm.yaml --learning_rate 1e-4

What a field may hold is its type, which jsonargparse checks: `PositiveInt` and its kin, `Literal` for a choice.
A user's mistake is a `ValueError` that our own code raises, with the fix in its message; `run` prints that sentence and
exits with status 2. Any other error keeps its traceback.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import datasets
import jsonargparse
import transformers
import yaml

from vlprm.errors import UserError

C = TypeVar("C")


def parse(cls: type[C], argv: Sequence[str]) -> C:
    """The dataclass that the file named by `--config` and the flags describe; flags win.

    An unknown key is a ValueError that names the nearest known one.
    """
    parser = jsonargparse.ArgumentParser(exit_on_error=False, description=cls.__doc__)
    parser.add_argument("--config", action="config", help="a YAML file of the fields below")
    parser.add_class_arguments(cls)
    _check_keys(cls, argv)
    try:
        made = parser.instantiate(parser.parse_args(_files_first(argv)))
        return cls(**{f.name: _unwrapped(made[f.name]) for f in dataclasses.fields(cls)})  # type: ignore[arg-type]
    except (jsonargparse.ArgumentError, TypeError) as error:
        raise UserError(" ".join(str(error).split()).removeprefix("Parser key ")) from error


def dump(config: Any) -> str:
    """The resolved config as YAML, as it is kept in a run folder."""
    plain = dataclasses.asdict(config, dict_factory=lambda pairs: {k: _plain(v) for k, v in pairs})
    return yaml.safe_dump(plain, sort_keys=False)


def run(main: Callable[[Any], None], cls: type[Any]) -> None:
    """Parse the command line into `cls`, set up logging, and call `main` with it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    # Their progress bars and load reports say nothing that ours do not.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        main(parse(cls, sys.argv[1:]))
    except ValueError as error:
        if not _is_refusal(error, main):
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _is_refusal(error: ValueError, main: Callable[[Any], None]) -> bool:
    """Whether a `raise` of the library, or of the package that `main` is in, made the error. One that comes out of a
    call (into torch, or `zip` of unequal lengths) is no sentence for a user: where it came from matters."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    ours = (Path(__file__).parents[1], Path(main.__code__.co_filename).parent)
    return (last.line or "").startswith("raise ") and any(Path(last.filename).is_relative_to(f) for f in ours)


def _check_keys(cls: type[Any], argv: Sequence[str]) -> None:
    known = [f.name for f in dataclasses.fields(cls)]
    for word in argv:
        if word.startswith("--"):
            name = word[2:].partition("=")[0]
            if name.partition(".")[0] not in (*known, "config", "help"):
                raise UserError(_unknown(f"flag --{name}", name, known))
    for path in _config_files(argv):
        if not path.is_file():
            raise UserError(f"config file {path} does not exist; recipes are under configs/")
        try:
            keys = yaml.safe_load(path.read_text()) or {}
        except yaml.YAMLError as error:
            raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(keys, dict):
            raise UserError(f"{path} holds no `key: value` lines")
        for key in keys:
            if key not in known:
                raise UserError(_unknown(f"key {key!r} in {path}", str(key), known))


def _config_files(argv: Sequence[str]) -> list[Path]:
    files = [Path(after) for word, after in pairwise(argv) if word == "--config"]
    return files + [Path(word.partition("=")[2]) for word in argv if word.startswith("--config=")]


def _files_first(argv: Sequence[str]) -> list[str]:
    """The same words with the config files in front, so that flags win wherever they stand."""
    files: list[str] = []
    flags: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--config":
            files += [word, next(words, "")]
        else:
            (files if word.startswith("--config=") else flags).append(word)
    return files + flags


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known)}"
    return f"unknown {what}; {hint}"


def _unwrapped(value: Any) -> Any:
    """Numbers as Python's own. A checked one is of a class of jsonargparse, which YAML cannot write and which a
    Trainer's checkpoint, once it holds one (as a learning rate), refuses to load."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return dataclasses.replace(value, **{f.name: _unwrapped(getattr(value, f.name)) for f in fields})
    if isinstance(value, dict):
        return {key: _unwrapped(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_unwrapped(item) for item in value)
    for number in (int, float):
        if isinstance(value, number) and not isinstance(value, bool):
            return number(value)
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
