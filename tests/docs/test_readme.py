"""What the README says can be done works."""

import re
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from train.builtin import curriculum
from train.policy.config import BuiltinConfig
from train.policy.lessons import refuse_unknown_concepts
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.loading import load_policy
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.runs.config import parse

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path for path in ROOT.glob("configs/**/*.yaml") if path.parent.name != "accelerate")
README = (ROOT / "README.md").read_text()


def test_a_reader_finds_the_two_commands_soon_and_the_end() -> None:
    lines = README.splitlines()
    assert {"make demo", "make test"} <= {line[:9] for line in lines[:40]}
    assert len(lines) < 160


def test_the_lines_of_python_solve_and_score_an_image(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    anywhere, with_a_reward_model = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(anywhere, "README.md", "exec"), {})
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("How many")
    assert "[answer]" in shown[-1]
    save_reward_model(
        load_reward_model(backbone, new_head="step"), tmp_path / "runs/demo/prm", CheckpointConfig(head="step")
    )
    exec(compile(with_a_reward_model, "README.md", "exec"), {})
    assert len(yaml.safe_load(capsys.readouterr().out)) == 2


def test_paths_that_are_named_exist() -> None:
    for path in re.findall(r"\]\(([^)#]+)\)", README) + re.findall(r"`((?:configs|docs|vlprm)/[\w/.]+)`", README):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_recipes_open_with_their_launch_line_and_parse(recipe: Path) -> None:
    text = recipe.read_text()
    command = re.search(r"#\s+(?:python|accelerate launch .*) -m ([\w.]+) --config (\S+)", text)
    assert command, f"{recipe} has no launch line"
    assert ROOT / command[2] == recipe
    module = __import__(command[1], fromlist=["x"])
    parse(get_type_hints(module.main)["config"], ["--config", str(recipe)])


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/accelerate/*.yaml")), ids=lambda p: p.stem)
def test_launch_files_are_what_accelerate_reads(path: Path) -> None:
    """accelerate refuses unknown keys at its own level; keys of the sharding sections are checked against its
    launcher's flags."""
    config = load_config_from_file(str(path))
    assert config.mixed_precision == "bf16"
    flags = {action.dest for action in launch_command_parser()._actions}
    assert set(getattr(config, "fsdp_config", None) or {}) <= flags


def test_blind_spots_of_the_policys_teacher_are_concepts_that_occur() -> None:
    config = parse(BuiltinConfig, ["--config", str(ROOT / "configs/builtin/policy.yaml")])
    assert config.blind_spots
    refuse_unknown_concepts(curriculum(config))


def test_a_policys_profile_has_no_head() -> None:
    assert load_policy("builtin/policy").config.head == "none"
