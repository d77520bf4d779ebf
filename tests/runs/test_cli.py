"""The command `vlprm`, and what all commands share: the list, recipes by name, a fast start."""

import importlib
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

import vlprm
from tests.stored import pool_record, write_run
from vlprm.errors import UserError
from vlprm.runs import cli, ray
from vlprm.runs.recipes import RECIPES, recipe, recipe_names
from vlprm.schema import Solution

ROOT = Path(__file__).parents[2]
# CPU seconds of the process that `--help` of a command may take.
START = 1.5


def python(*words: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    of_all = {**os.environ, "PYTHONPATH": path, **env}
    return subprocess.run([sys.executable, *words], cwd=cwd, env=of_all, capture_output=True, text=True)


def called(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["vlprm", *argv])
    cli.main()


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_the_list_of_commands(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called(argv, monkeypatch)
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert shown == [*cli.COMMANDS, "recipes"]


def test_every_command_of_the_stages_is_listed() -> None:
    files = {f"{stage}.{p.stem}" for stage in ("data_synth", "train", "eval") for p in (ROOT / stage).glob("*.py")}
    commands = {name for name in files if "\n    run(main, " in (ROOT / f"{name.replace('.', '/')}.py").read_text()}
    assert commands == {command.module for command in cli.COMMANDS.values()}


@pytest.mark.parametrize("command", cli.COMMANDS.values(), ids=list(cli.COMMANDS))
def test_a_command_takes_the_config_that_is_read_for_it(command: cli.Command) -> None:
    module, _, name = command.config.partition(":")
    taken = get_type_hints(importlib.import_module(command.module).main)["config"]
    assert taken is getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["tres"], "unknown command 'tres'; did you mean trees?"),
        (["recipies"], "did you mean recipes?"),
        (["qqq"], "unknown command 'qqq'; `vlprm --help` lists them"),
        (["recipes", "demo/pm"], "did you mean demo/prm?"),
        (["recipes", "demo/prm", "there"], "`vlprm recipes demo/prm > prm.yaml` copies one"),
        (["fuse", "--datset", "x"], "unknown flag --datset; did you mean 'dataset'?"),
    ],
)
def test_mistakes_are_one_sentence(
    argv: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        called(argv, monkeypatch)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_recipes_are_listed_and_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    called(["recipes"], monkeypatch)
    listed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(listed) == recipe_names()
    assert listed["synthesis/flat"].startswith("Rollouts at every prefix")
    called(["recipes", "synthesis/flat"], monkeypatch)
    assert capsys.readouterr().out == (ROOT / "configs/synthesis/flat.yaml").read_text()


def test_a_recipe_has_a_path_and_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("demo/prm", "demo/prm.yaml", "configs/demo/prm.yaml"):
        assert recipe(name) == RECIPES / "demo/prm.yaml"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/prm.yaml").touch()
    assert recipe("demo/prm.yaml") == Path("demo/prm.yaml")  # the user's own file wins
    with pytest.raises(UserError, match="did you mean demo/trees"):
        recipe("configs/demo/tree.yaml")


def test_the_help_has_each_sentence_beside_its_flag() -> None:
    text = python("-m", "vlprm", "fuse", "--help").stdout
    assert text.startswith("usage: vlprm fuse ")
    flags = text.partition("Fuse the labels of a dataset again with another rule:")[2]
    assert "parquet file of data_synth.label" in flags.partition("--dataset DATASET")[2].partition("--target")[0]
    assert "(required; path)" in flags
    assert "class" not in text
    assert "Literal" not in text
    assert "the same as --policy.checkpoint" in python("-m", "vlprm", "trees", "--help").stdout
    assert python("-m", "data_synth.fuse", "--help").stdout.startswith("usage: python -m data_synth.fuse ")


def seconds_of(*words: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Seconds of CPU that a process takes, and what it says."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = python(*words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime), done


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_start_is_light(name: str) -> None:
    seconds, done = seconds_of("-m", "vlprm", name, "--help")
    assert done.returncode == 0, done.stderr
    assert not re.findall(r"(--[\w.]+) \S+\s+\(", done.stdout), "flags without a sentence"
    assert seconds < START


@pytest.mark.parametrize("name", ["trees", "train"])
def test_a_mistake_is_named_at_once(name: str) -> None:
    seconds, done = seconds_of("-m", "vlprm", name, "--seeed", "1")
    assert done.returncode == 2
    assert done.stderr == "error: unknown flag --seeed; did you mean 'seed'?\n"
    assert seconds < START


def test_a_table_of_a_small_run_is_printed_at_once(tmp_path: Path) -> None:
    problem = vlprm.example_problem()
    solution = Solution(problem.id, (), str(problem.answer), "answer", 3)
    run = write_run(tmp_path / "run", [pool_record(0, problem, [solution] * 2)])
    seconds, done = seconds_of("-m", "vlprm", "table", "--runs", str(run), "--format", "csv")
    assert "\npolicy,100.0," in done.stdout
    assert seconds < START


@pytest.mark.parametrize("argv", [["-c", "import vlprm"], ["-m", "vlprm", "--help"], ["-m", "vlprm", "recipes"]])
def test_the_library_and_the_list_load_nothing(argv: list[str]) -> None:
    done = python("-X", "importtime", *argv)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0
    assert not loaded & {
        "torch",
        "numpy",
        "yaml",
        "jsonargparse",
        "transformers",
        "datasets",
        "PIL",
        "data_synth",
        "eval",
    }


def test_the_public_names_are_there() -> None:
    assert set(vlprm.__all__) <= set(dir(vlprm))
    for name in vlprm.__all__:
        assert getattr(vlprm, name) is not None
    assert (ROOT / "vlprm/py.typed").is_file()
    problem = vlprm.example_problem()
    assert problem.question.startswith("How many")
    assert problem.images[0].startswith(b"\x89PNG")
    with pytest.raises(AttributeError, match="no attribute 'scor'"):
        _ = vlprm.scor


HOSTILE = {"train.py": "raise SystemExit('mine')", "eval/run.py": "raise SystemExit('mine')", "eval/__init__.py": ""}


def hostile(folder: Path) -> Path:
    for name, text in HOSTILE.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("name", ["merge", "score"])
def test_files_of_the_user_do_not_stand_in_for_ours(name: str, tmp_path: Path) -> None:
    done = python("-m", "vlprm", name, "--help", cwd=hostile(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: vlprm {name} ")


def test_a_module_of_the_user_is_found_behind_ours(tmp_path: Path) -> None:
    (hostile(tmp_path) / "mine.py").write_text("from vlprm.tasks.count_grid import FAMILY")
    program = "from vlprm.tasks import load_task; import train.merge; print(load_task('mine.sub').name)"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine.py").rename(tmp_path / "mine/sub.py")
    done = python("-P", "-c", program, cwd=tmp_path)
    assert done.stdout == "count_grid\n", done.stderr


def test_workers_of_ray_look_for_our_packages_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray puts its driver's folder in front of all others in a worker's path."""
    seen: dict[str, object] = {}

    class Ray:
        def init(self, address: str, runtime_env: dict[str, dict[str, str]], log_to_driver: bool) -> None:
            seen.update(folder=os.getcwd(), path=runtime_env["env_vars"]["PYTHONPATH"].split(os.pathsep))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    ray._connect(Ray(), "auto")
    assert seen == {"folder": str(ROOT), "path": [str(ROOT), "/somewhere", str(tmp_path)]}
    assert os.getcwd() == str(tmp_path)


def test_the_version_is_that_of_the_project() -> None:
    done = python("-c", "import json, vlprm; print(json.dumps([vlprm.__version__, sorted(vlprm.__all__)[0]]))")
    assert json.loads(done.stdout) == ["0.1.0", "LocalPolicy"]
