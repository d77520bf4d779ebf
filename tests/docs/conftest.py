"""A reader's working folder, and how a test starts a command in it."""

from __future__ import annotations

import dataclasses
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Run
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.runs import cli
from vlprm.tasks import TASKS


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `-m MODULE FLAGS`, as `vlprm COMMAND FLAGS`, or `-c PROGRAM` in a folder with the recipes, and returns what
    is printed. It stays in this process, because a process of its own needs seconds for its imports."""
    monkeypatch.chdir(tmp_path)
    for folder in ("configs", "docs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    names = {command.module: name for name, command in cli.COMMANDS.items()}

    def run(words: Sequence[str]) -> str:
        capsys.readouterr()
        if words[0] == "-c":
            program = tmp_path / "program.py"
            program.write_text(words[1])
            runpy.run_path(str(program), run_name="__main__")
        else:
            monkeypatch.setattr(sys, "argv", ["vlprm", names[words[1]], *words[2:]])
            cli.main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The working folder of a reader who has an image, and the models of `make demo` and of recipes in configs/."""
    (tmp_path / "grid.png").write_bytes(TASKS["count_grid"].problem("test", 0).images[0])
    checkpoint = load_reward_model("builtin/backbone", new_head="step")
    for name in ("demo", "critic"):
        made = dataclasses.replace(checkpoint.config, provenance={"critiques": name == "critic"})
        save_reward_model(checkpoint, tmp_path / "runs" / name / "prm", made)
    for name, output in (("value", "value"), ("beta_prm", "concentration")):
        made = load_reward_model("builtin/backbone", new_head="step", extra_outputs=(output,))
        save_reward_model(made, tmp_path / "runs" / name, made.config)
    return tmp_path
