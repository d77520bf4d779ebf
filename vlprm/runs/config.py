"""Configure every command in the same way: a frozen dataclass, a YAML file, and flags that override it.

    vlprm train --config demo/prm --learning_rate 1e-4
    python -m train.prm --config configs/demo/prm.yaml --learning_rate 1e-4

The type of a field limits its values, and jsonargparse checks it: `PositiveInt` and the like, `Literal` for a choice. A
user's mistake is a `UserError` (or a record's `SchemaError`) with the fix in its message; `run` prints that sentence
and exits with status 2. Any other error keeps its traceback.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jsonargparse
import yaml

from vlprm.errors import UserError
from vlprm.runs.flags import kinds_of, taken
from vlprm.runs.help import Parser
from vlprm.runs.refusals import sentence
from vlprm.schema import SchemaError

C = TypeVar("C")

# Their progress bars and load reports repeat ours. A user who sets a variable to another value sees them.
QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # also transformers' progress bars
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}


def parse(cls: type[C], argv: Sequence[str], command: str | None = None) -> C:
    """The dataclass that results from the recipe of `--config` and the flags, which win. `command` is the name of the
    command in the help. UserError on an unknown key suggests the nearest known one."""
    about = (cls.__doc__ or "").partition("\n")[0]
    usage = f"{command or '%(prog)s'} [--config RECIPE] [--flag value ...]"
    parser = Parser(exit_on_error=False, description=about, usage=usage)
    parser.add_argument(
        "--config", action="config", metavar="RECIPE", help="a recipe: its name, such as demo/prm, or a YAML file"
    )
    parser.add_class_arguments(cls)
    kinds = kinds_of(parser)
    words = taken(argv, kinds)
    try:
        made = parser.instantiate(parser.parse_args(words))
        return cls(**{f.name: _unwrapped(made[f.name], f.name) for f in dataclasses.fields(cls)})  # type: ignore[arg-type]
    except (jsonargparse.ArgumentError, TypeError, ValueError) as error:
        raise UserError(sentence(str(error), kinds)) from error


def dump(config: Any) -> str:
    """The resolved config as YAML, as stored in a run folder."""
    plain = dataclasses.asdict(config, dict_factory=lambda pairs: {k: _plain(v) for k, v in pairs})
    return yaml.safe_dump(plain, sort_keys=False)


def run(main: Callable[[Any], None], cls: type[Any], command: str | None = None) -> None:
    """Parse the command line into `cls`, set up logging, and call `main` with it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        main(parse(cls, sys.argv[1:], command or _module_command()))
    except (UserError, SchemaError) as error:
        said = str(error)
    except (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError) as error:
        if error.filename is None:
            raise
        said = f"{os.fsdecode(error.filename)}: {error.strerror}; give another path"
    else:
        return
    print(f"error: {said}", file=sys.stderr)
    raise SystemExit(2)


def _module_command() -> str | None:
    """The command `python -m ...` that started this program; None if it was started another way."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name}" if spec else None


def _unwrapped(value: Any, name: str) -> Any:
    """Replace jsonargparse's checked numbers by plain ones: YAML cannot write them, and a Trainer's checkpoint that
    contains one (a learning rate) cannot be loaded. UserError for a number that is not finite."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        plain = {f.name: _unwrapped(getattr(value, f.name), f"{name}.{f.name}") for f in fields}
        return dataclasses.replace(value, **plain)
    if isinstance(value, dict):
        return {key: _unwrapped(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_unwrapped(item, name) for item in value)
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name} is {value}; give a finite number")
    for number in (int, float):
        if isinstance(value, number) and not isinstance(value, bool):
            return number(value)
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
