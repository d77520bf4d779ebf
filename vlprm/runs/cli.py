"""The console command `vlprm`, which runs each stage by name.

    vlprm trees --config demo/trees
    vlprm recipes                     lists the packaged recipes; `vlprm recipes demo/prm` prints one

The library refers to stages only by name. A command is imported when it is called, its config first.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from importlib.machinery import PathFinder
from types import ModuleType
from typing import NamedTuple

from vlprm.errors import UserError
from vlprm.runs.recipes import RECIPES, ROOT, purpose, recipe, recipe_names


class Command(NamedTuple):
    """A stage: the module with its `main`; its config (`module:class`, from a light module, so that flags are checked
    before torch is imported); and its description."""

    module: str
    config: str
    about: str


COMMANDS: dict[str, Command] = {
    "trees": Command(
        "data_synth.trees", "data_synth.search.config:TreesConfig", "grow search trees from a policy's own steps"
    ),
    "rounds": Command(
        "data_synth.rounds",
        "data_synth.search.config:RoundsConfig",
        "make search trees of a policy's own rounds, to label them again",
    ),
    "judge": Command(
        "data_synth.judge",
        "data_synth.judges.config:JudgeConfig",
        "collect a judge's verdicts on the steps of search trees",
    ),
    "annotate": Command(
        "data_synth.annotate",
        "data_synth.annotations.config:AnnotateConfig",
        "confirm or override step labels in the browser, beside the image",
    ),
    "inject": Command(
        "data_synth.inject",
        "data_synth.injected.config:InjectConfig",
        "put steps that are known to be wrong into search trees",
    ),
    "label": Command(
        "data_synth.label",
        "data_synth.labels.config:LabelConfig",
        "fuse search trees and verdicts into a dataset of step labels",
    ),
    "claims": Command(
        "data_synth.claims",
        "data_synth.labels.config:ClaimsConfig",
        "write the claims of perception steps with their spans and truth",
    ),
    "fuse": Command(
        "data_synth.fuse", "data_synth.labels.config:FuseConfig", "relabel a dataset with another fusion rule"
    ),
    "select": Command(
        "data_synth.select",
        "data_synth.selected.config:SelectConfig",
        "select the solutions of a pool or a dataset that are worth training on",
    ),
    "synthesis-report": Command(
        "data_synth.report",
        "data_synth.reports.config:ReportConfig",
        "report the cost and quality of trees, verdicts and labels",
    ),
    "convert": Command(
        "data_synth.convert",
        "data_synth.formats.config:ConvertConfig",
        "convert step label datasets from and to other formats",
    ),
    "decontaminate": Command(
        "data_synth.decontaminate",
        "data_synth.decontamination.config:DecontaminateConfig",
        "remove benchmark problems from a dataset",
    ),
    "train": Command("train.prm", "train.reward.config:PrmConfig", "train a reward model on a dataset"),
    "grpo": Command(
        "train.grpo",
        "train.policy.grpo_config:GrpoConfig",
        "improve a policy by its own rollouts, with rewards for steps and zooms",
    ),
    "merge": Command(
        "train.merge",
        "train.reward.config:MergeConfig",
        "merge LoRA adapters and their backbone, or the shards of a run, into one checkpoint",
    ),
    "pairs": Command(
        "train.pairs", "train.policy.config:PairsConfig", "make preference pairs from the siblings of search trees"
    ),
    "critic-rows": Command(
        "train.critic_rows",
        "train.policy.critic_rows_config:CriticRowsConfig",
        "make training rows for a critic: critiques that agree with the labels, pairs, or prompts",
    ),
    "sft": Command("train.sft", "train.policy.config:SftConfig", "train a policy on right solutions"),
    "dpo": Command("train.dpo", "train.policy.config:DpoConfig", "train a policy on pairs of next steps"),
    "builtin": Command(
        "train.builtin", "train.policy.config:BuiltinConfig", "rebuild the built-in policy and backbone"
    ),
    "solve": Command(
        "eval.solve", "eval.runs.config:SolveConfig", "solve one question about images, with step rewards and a page"
    ),
    "run": Command(
        "eval.run", "eval.runs.config:RunConfig", "run search methods on benchmarks and record the candidates"
    ),
    "table": Command("eval.table", "eval.tables.config:TableConfig", "print tables of runs"),
    "compare": Command(
        "eval.compare", "eval.tables.config:CompareConfig", "compare reward models with the vote on one stored pool"
    ),
    "score": Command("eval.score", "eval.score:ScoreConfig", "score stored outputs with a benchmark's own rule"),
    "steps": Command(
        "eval.steps", "eval.step_scores.config:StepsConfig", "evaluate a reward model on a benchmark of labelled steps"
    ),
    "preferences": Command(
        "eval.preferences",
        "eval.pair_scores.config:PreferencesConfig",
        "measure which of two responses a reward model or a judge prefers, on benchmarks of pairs",
    ),
    "flips": Command(
        "eval.flips", "eval.step_scores.config:FlipsConfig", "measure whether step rewards follow the image"
    ),
    "report": Command("eval.report", "eval.tables.config:ReportConfig", "measure a run and write its page"),
    "view": Command("eval.view", "eval.tables.config:ViewConfig", "show a run in the browser, problem by problem"),
    "parity": Command(
        "eval.parity", "eval.step_scores.config:ParityConfig", "check that servers score like this process"
    ),
    "critiques": Command(
        "eval.critiques", "eval.step_scores.config:CritiquesConfig", "evaluate critiques against the ground truth"
    ),
    "faithfulness": Command(
        "eval.faithfulness", "eval.runs.config:FaithfulnessConfig", "measure whether a policy uses its zooms"
    ),
    "reproduced": Command(
        "eval.reproduced", "eval.reproduced:ReproducedConfig", "recompute published scores from published outputs"
    ),
}
RECIPES_COMMAND = "recipes"


def main() -> None:
    """Entry point of the console script."""
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
    """Import a module that is installed next to vlprm, even if Python would first find a `train.py` or a folder `eval`
    in the user's working directory."""
    package = path.partition(".")[0]
    spec = PathFinder.find_spec(package, [str(ROOT)])
    assert spec is not None, f"{package} is not installed next to vlprm"
    assert spec.loader is not None
    if getattr(sys.modules.get(package), "__file__", None) != spec.origin:
        sys.modules[package] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[package])
    return importlib.import_module(path)


def _listed() -> str:
    recipes = "list the packaged recipes, or print one by name"
    lines = [*((name, command.about) for name, command in COMMANDS.items()), (RECIPES_COMMAND, recipes)]
    width = max(len(name) for name, _ in lines)
    return "\n".join(
        [
            "usage: vlprm COMMAND [--config RECIPE] [--flag value ...]",
            "",
            *(f"  {name:{width}}  {about}" for name, about in lines),
            "",
            "`vlprm COMMAND --help` explains the flags of a command.",
        ]
    )


def _recipes(names: list[str]) -> str:
    if [name for name in names if name.startswith("-")] or len(names) > 1:
        raise UserError("`vlprm recipes` lists the recipes; `vlprm recipes demo/prm > prm.yaml` copies one")
    if names:
        return recipe(names[0]).read_text(encoding="utf-8").rstrip("\n")
    width = max(map(len, recipe_names()))
    return "\n".join(f"{name:{width}}  {purpose(RECIPES / f'{name}.yaml')}" for name in recipe_names())
