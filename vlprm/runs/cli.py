"""The command `vlprm`: each stage by its name.

    vlprm trees --config demo/trees
    vlprm recipes                     lists the recipes of the package; `vlprm recipes demo/prm` prints one

The library knows the stages by name alone: what is listed here is imported when it is asked for, its config first.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from vlprm.errors import UserError
from vlprm.runs.recipes import RECIPES, purpose, recipe, recipe_names


class Command(NamedTuple):
    """A stage: its module, whose `main` runs it; its config, in a module that imports nothing heavy, so that flags are
    read before torch is; what it does."""

    module: str
    config: str
    about: str


COMMANDS: dict[str, Command] = {
    "trees": Command(
        "data_synth.trees", "data_synth.search.config:TreesConfig", "problems -> search trees over a policy's own steps"
    ),
    "judge": Command(
        "data_synth.judge", "data_synth.judges.config:JudgeConfig", "search trees -> a judge's verdicts on their steps"
    ),
    "label": Command(
        "data_synth.label",
        "data_synth.labels.config:LabelConfig",
        "trees and verdicts -> a dataset of fused step labels",
    ),
    "fuse": Command(
        "data_synth.fuse", "data_synth.labels.config:FuseConfig", "a dataset's labels made again by another rule"
    ),
    "synthesis-report": Command(
        "data_synth.report",
        "data_synth.reports.config:ReportConfig",
        "what trees, judge and labels cost, and how right they are: a page",
    ),
    "convert": Command(
        "data_synth.convert",
        "data_synth.formats.config:ConvertConfig",
        "other groups' datasets of step labels -> ours, and ours -> theirs",
    ),
    "decontaminate": Command(
        "data_synth.decontaminate",
        "data_synth.decontamination.config:DecontaminateConfig",
        "a dataset without the problems of benchmarks",
    ),
    "train": Command("train.prm", "train.reward.config:PrmConfig", "a dataset -> a reward model"),
    "merge": Command("train.merge", "train.reward.config:MergeConfig", "adapters and their backbone -> one checkpoint"),
    "builtin": Command(
        "train.builtin", "train.policy.config:BuiltinConfig", "make the built-in policy and backbone again"
    ),
    "solve": Command(
        "eval.solve", "eval.runs.config:SolveConfig", "one image and one question -> a scored solution, and a page"
    ),
    "run": Command(
        "eval.run", "eval.runs.config:RunConfig", "a policy, a reward model, methods and benchmarks -> records"
    ),
    "table": Command("eval.table", "eval.tables.config:TableConfig", "records of runs -> tables"),
    "score": Command("eval.score", "eval.score:ScoreConfig", "the score of stored outputs by a benchmark's own rule"),
    "steps": Command(
        "eval.steps", "eval.step_scores.config:StepsConfig", "a reward model on a benchmark of labelled steps"
    ),
    "report": Command("eval.report", "eval.tables.config:ReportConfig", "a whole run -> its results, and a page"),
    "view": Command("eval.view", "eval.tables.config:ViewConfig", "a run, problem by problem, in the browser"),
    "parity": Command(
        "eval.parity", "eval.step_scores.config:ParityConfig", "whether servers score as this process does"
    ),
    "critiques": Command(
        "eval.critiques", "eval.step_scores.config:CritiquesConfig", "written critiques against the truth"
    ),
    "faithfulness": Command(
        "eval.faithfulness", "eval.runs.config:FaithfulnessConfig", "whether a policy looks at what it zooms to"
    ),
    "reproduced": Command(
        "eval.reproduced", "eval.reproduced:ReproducedConfig", "published outputs scored again by their authors' rules"
    ),
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

    command = COMMANDS[name]
    module, _, config = command.config.partition(":")
    del sys.argv[1]
    run(lambda made: own_module(command.module).main(made), getattr(own_module(module), config), f"vlprm {name}")


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
    lines = [*((name, command.about) for name, command in COMMANDS.items()), (RECIPES_COMMAND, recipes)]
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
