"""What recipes say to do with the models that they train: their commands of eval.run and eval.critiques run as written."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

from tests.docs.pages import ROOT, Run
from tests.docs.test_commands import documented
from vlprm.model.reward_loading import load_reward_model, save_reward_model

SMALL = ["--benchmarks", "[{name: count_grid, problems: 2}]", "--search.n", "4", "--policy.device", "cpu"]


def evaluations(recipe: str) -> list[list[str]]:
    """The words of a recipe's commands of eval.run, with flags that make them small."""
    commands = documented(ROOT / "configs" / recipe)
    return [["-m", c.name, *shlex.split(c.flags), *SMALL] for c in commands if c.name == "eval.run"]


def records_of(run: Path) -> list[dict[str, Any]]:
    (path,) = run.glob("records*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_x(folder: Path, run: Run) -> None:
    for recipe in ("train/value.yaml", "train/beta_prm.yaml", "eval/prm_bas.yaml"):
        for words in evaluations(recipe):
            run(words)
    implicit = load_reward_model("builtin/backbone", new_head="implicit")
    save_reward_model(
        implicit,
        folder / "runs/implicit",
        dataclasses.replace(implicit.config, provenance={"reference": "builtin/backbone"}),
    )
    run(
        [
            "-m",
            "eval.run",
            "--config",
            "demo/eval",
            "--reward_model",
            "runs/implicit",
            "--run",
            "runs/of_implicit",
            *SMALL,
        ]
    )
    import subprocess

    out = subprocess.run(
        f"find runs -type f | grep -v safetensors; for f in $(find runs -name 'records*'); do echo; echo $f; head -c 2500 $f; done",
        shell=True,
        capture_output=True,
        text=True,
        cwd=folder,
    ).stdout
    Path("/tmp/out.txt").write_text(out)
