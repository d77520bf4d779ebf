"""Every command in a page, a recipe, the Makefile or a module has such flags, and the recipes named there exist."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import pytest

from tests.docs.pages import ROOT
from vlprm.runs import cli
from vlprm.runs.config import parse
from vlprm.runs.recipes import recipe

PAGES = [*sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("*.md"))]
HEADS = [
    ROOT / "Makefile",
    *(path for path in sorted(ROOT.glob("configs/**/*")) if path.is_file()),
    *(path for folder in ("vlprm", "data_synth", "train", "eval") for path in sorted((ROOT / folder).rglob("*.py"))),
    *(path for path in sorted(ROOT.glob("docs/examples/*.*"))),
]
BY_MODULE = {command.module: command for command in cli.COMMANDS.values()}
LAUNCHER = r"(?:^|[\s/])(?:python3?|\$\(RUN\)|accelerate launch .*?) -m (?:vlprm )?"
LAUNCHED = re.compile(LAUNCHER + r"(?P<name>\w+(?:\.\w+)*)(?P<words>(?![.\w]).*)")
NAMED = re.compile(r"^(?:vlprm )?(?P<name>[\w.-]+)(?P<words>.*)")
# Where the words of a command end: at what is left out, at a remark in a further column, at a redirection.
END = re.compile(r"(?:^|\s)(?:…|\.\.\.)(?=[\s,]|$)|\s{2,}|\s>")


class Documented(NamedTuple):
    """A command where it is written: what is started, its flags, and whether it is a part of a command."""

    where: str
    name: str
    flags: str
    partial: bool


def documented(path: Path) -> list[Documented]:
    """The commands of a file, each on a line of its own, or within a sentence of a page."""
    found = []
    for line, partial in lines_of(path):
        match = LAUNCHED.search(line) or (NAMED.match(line) if starts_a_command(line) else None)
        if match is None or not is_own(match["name"]):
            continue
        written, *left_out = END.split(match["words"].strip(), maxsplit=1)
        where = path.relative_to(ROOT).as_posix()
        found.append(Documented(where, match["name"], written, partial or bool(left_out)))
    return found


def lines_of(path: Path) -> list[tuple[str, bool]]:
    """The lines of a file that may be commands, and whether each may be a part of one. A page has them in its blocks
    and, as parts, in its spans of code; a module in its docstring. A line that ends with a backslash goes on in the
    next."""
    text = path.read_text()
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    text = re.sub(r" *\\\n[#\s]*", " ", text)
    if path.suffix != ".md":
        return [(line.strip("# "), False) for line in text.splitlines()]
    fence = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`]+)`", fence.sub("", text))
    return [
        *((line, False) for block in fence.findall(text) for line in block.splitlines()),
        *((" ".join(span.split()), True) for span in spans),
    ]


def starts_a_command(line: str) -> bool:
    """Whether a line starts one of our commands without `python`."""
    first, _, rest = line.partition(" ")
    return (first == "vlprm" and rest.partition(" ")[0] in cli.COMMANDS) or (first in BY_MODULE and rest[:2] == "--")


def is_own(name: str) -> bool:
    return name in cli.COMMANDS or name.partition(".")[0] in ("vlprm", "data_synth", "train", "eval", "tests")


COMMANDS = sorted({command for path in [*PAGES, *HEADS] for command in documented(path)})


def test_the_pages_and_the_recipes_have_commands() -> None:
    assert len(COMMANDS) > 300
    assert {command.where for command in COMMANDS} >= {
        *("README.md", "docs/judges.md", "docs/synthesis.md", "docs/step_benchmarks.md", "docs/inference.md"),
        *("configs/train/beta_prm.yaml", "configs/server/slurm_array.sh", "data_synth/judge.py"),
    }


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: f"{c.where}:{c.name}")
def test_a_documented_command_has_such_flags(command: Documented) -> None:
    known = cli.COMMANDS.get(command.name) or BY_MODULE.get(command.name)
    if known is None:
        assert find_spec(command.name), f"{command.name} is not a module"
        return
    module, _, name = known.config.partition(":")
    config, words = getattr(import_module(module), name), shlex.split(command.flags, comments=True)
    if command.partial:
        if words and words[-1].startswith("--"):  # its value is left out
            words.pop()
        words = [*required(config, words), *words]
    parse(config, words)


def required(config: type[Any], words: list[str]) -> list[str]:
    """The flags that a part of a command leaves out, with any value."""
    given = {word.removeprefix("--").partition(".")[0] for word in words}
    types, needed = get_type_hints(config), []
    for field in dataclasses.fields(config):
        if field.default is field.default_factory is dataclasses.MISSING and field.name not in given:
            kind = types[field.name]
            value = get_args(kind)[0] if get_origin(kind) is Literal else "X"
            needed += [f"--{field.name}", "[{name: X}]" if field.name == "benchmarks" else value]
    return needed


@pytest.mark.parametrize("path", [*PAGES, *HEADS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_recipes_that_a_text_names_exist(path: Path) -> None:
    text = path.read_text()
    for name in re.findall(r"\bconfigs/[\w/.]+\.(?:yaml|sh)\b", text):
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"--config[ =]([a-z_]+/[a-z_0-9]+)(?![\w/.])", text):
        recipe(name)


@pytest.mark.parametrize("path", [path for path in HEADS if path.suffix == ".yaml"], ids=lambda path: path.stem)
def test_a_command_in_a_recipe_that_goes_on_says_so(path: Path) -> None:
    """A reader who copies the lines without a backslash starts another command."""
    lines = path.read_text().splitlines()
    for line, following in pairwise(lines):
        if re.match(r"#\s+--\w", following):
            assert line.endswith("\\"), f"{line} goes on"
