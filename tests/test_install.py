"""The installed package works in a folder with user files that have the same names as ours."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("vlprm", "data_synth", "train", "eval", "configs", "pyproject.toml", "README.md", "LICENSE")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like site-packages, with what pip installs from a copy of the project."""
    clone, site = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("site")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, clone / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, clone / part)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(clone)], check=True)
    return site


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder, none of whose files may run."""
    (tmp_path / "eval").mkdir()
    (tmp_path / "data_synth").mkdir()
    for name in ("train.py", "eval/run.py", "eval/__init__.py", "eval/score.py", "data_synth/__init__.py"):
        (tmp_path / name).write_text("raise SystemExit('this is mine')")
    return tmp_path


def environment(site: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))}


def called(site: Path, project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(site / "bin/vlprm"), *words]
    return subprocess.run(command, cwd=project, env=environment(site), capture_output=True, text=True)


@pytest.mark.parametrize("name", ["trees", "train", "merge", "score", "run", "convert"])
def test_commands_start(name: str, site: Path, project: Path) -> None:
    done = called(site, project, name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: vlprm {name} ")


def test_the_python_that_looks_nowhere_else_runs_modules(site: Path, project: Path) -> None:
    env = environment(site)
    words = [sys.executable, "-P", "-m", "train.merge", "--help"]
    done = subprocess.run(words, cwd=project, env=env, capture_output=True, text=True)
    assert done.stdout.startswith("usage: python -m train.merge "), done.stderr


def test_files_of_the_package_are_installed(site: Path, project: Path) -> None:
    recipes = called(site, project, "recipes").stdout.splitlines()
    assert len(recipes) == len(list((ROOT / "configs").glob("*/*.yaml")))
    assert called(site, project, "recipes", "configs/demo/prm.yaml").stdout.startswith("# The demo, stage 4")
    assert called(site, project, "--version").stdout == "0.1.0\n"
    for name in ("vlprm/py.typed", "eval/published.yaml", "vlprm/viewer/page/page.html"):
        assert (site / name).is_file()
    for name in ("policy", "backbone"):
        assert (site / "vlprm/builtin" / name / "model.safetensors").is_file()


def test_a_command_runs_by_the_name_of_its_recipe(site: Path, project: Path) -> None:
    words = ["trees", "--config", "demo/trees", "--problems", "1", "--unit", "1", "--search.rollouts", "1"]
    done = called(site, project, *words, "--run", str(project / "out"))
    assert done.returncode == 0, done.stderr
    assert (project / "out/trees.jsonl").is_file()
    assert "problems: 1" in (project / "out/config.yaml").read_text()


def test_published_rows_are_found(site: Path, project: Path) -> None:
    program = "import eval.table, pathlib; print(len(eval.table.published_rows(pathlib.Path('eval/published.yaml'))))"
    env = environment(site)
    done = subprocess.run([sys.executable, "-P", "-c", program], cwd=project, env=env, capture_output=True, text=True)
    assert int(done.stdout) > 0, done.stderr
