"""The command `vlprm`: each stage by its name.

    vlprm trees --config demo/trees
    vlprm recipes                     lists the recipes of the package; `vlprm recipes demo/prm` prints one

The library knows the stages by name alone: what is listed here is imported when it is asked for.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import typing
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from vlprm.errors import UserError
from vlprm.runs.recipes import RECIPES, purpose, recipe, recipe_names

COMMANDS: dict[str, tuple[str, str]] = {
    "trees": ("data_synth.trees", "problems -> search trees over a policy's own steps"),
    "judge": ("data_synth.judge", "search trees -> a judge's verdicts on their steps"),
    "label": ("data_synth.label", "trees and verdicts -> a dataset of fused step labels"),
    "fuse": ("data_synth.fuse", "a dataset's labels made again by another rule"),
    "synthesis-report": ("data_synth.report", "what trees, judge and labels cost, and how right they are: a page"),
    "convert": ("data_synth.convert", "other groups' datasets of step labels -> ours, and ours -> theirs"),
    "decontaminate": ("data_synth.decontaminate", "a dataset without the problems of benchmarks"),
    "train": ("train.prm", "a dataset -> a reward model"),
    "merge": ("train.merge", "adapters and their backbone -> one checkpoint"),
    "builtin": ("train.builtin", "make the built-in policy and backbone again"),
    "solve": ("eval.solve", "one image and one question -> a scored solution, and a page"),
    "run": ("eval.run", "a policy, a reward model, methods and benchmarks -> records"),
    "table": ("eval.table", "records of runs -> tables"),
    "score": ("eval.score", "the score of stored outputs by a benchmark's own rule"),
    "steps": ("eval.steps", "a reward model on a benchmark of labelled steps"),
    "report": ("eval.report", "a whole run -> its results, and a page"),
    "view": ("eval.view", "a run, problem by problem, in the browser"),
    "parity": ("eval.parity", "whether servers score as this process does"),
    "critiques": ("eval.critiques", "written critiques against the truth"),
    "faithfulness": ("eval.faithfulness", "whether a policy looks at what it zooms to"),
    "reproduced": ("eval.reproduced", "published outputs scored again by their authors' rules"),
}
RECIPES_COMMAND = "recipes"
ROOT = Path(__file__).parents[2]  # the folder of vlprm and the stages


def main() -> None:
    """The console script."""
    words = sys.argv[1:]
    try:
        if not words or words[0] in ("-h", "--help"):
            print(_listed())
        elif words[0] == "--version":
            print(importlib.import_module("vlprm").__version__)
        elif words[0] == RECIPES_COMMAND:
            print(_recipes(words[1:]))
        else:
            _run(words[0])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _run(name: str) -> None:
    if name not in COMMANDS:
        nearest = difflib.get_close_matches(name, [*COMMANDS, RECIPES_COMMAND], n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "`vlprm --help` lists them"
        raise UserError(f"unknown command {name!r}; {hint}")
    from vlprm.runs.config import run

    command = own_module(COMMANDS[name][0])
    del sys.argv[1]
    run(command.main, typing.get_type_hints(command.main)["config"], f"vlprm {name}")


def own_module(path: str) -> ModuleType:
    """The module with this dotted path that is installed next to vlprm, even where Python would first find a `train.py`
    or a folder `eval` in the user's working directory."""
    package = path.partition(".")[0]
    spec = PathFinder.find_spec(package, [str(ROOT)])
    assert spec is not None, f"{package} is not installed beside vlprm"
    assert spec.loader is not None
    if getattr(sys.modules.get(package), "__file__", None) != spec.origin:
        sys.modules[package] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[package])
    return importlib.import_module(path)


def _listed() -> str:
    recipes = "the recipes of the package; with a name, that recipe"
    lines = [*((name, about) for name, (_, about) in COMMANDS.items()), (RECIPES_COMMAND, recipes)]
    width = max(len(name) for name, _ in lines)
    return "\n".join(
        [
            "usage: vlprm COMMAND [--config RECIPE] [--flag value ...]",
            "",
            *(f"  {name:{width}}  {about}" for name, about in lines),
            "",
            "`vlprm COMMAND --help` explains the flags of one.",
        ]
    )


def _recipes(names: list[str]) -> str:
    if [name for name in names if name.startswith("-")] or len(names) > 1:
        raise UserError("`vlprm recipes` lists the recipes; `vlprm recipes demo/prm > prm.yaml` copies one")
    if names:
        return recipe(names[0]).read_text(encoding="utf-8").rstrip("\n")
    width = max(map(len, recipe_names()))
    return "\n".join(f"{name:{width}}  {purpose(RECIPES / f'{name}.yaml')}" for name in recipe_names())
