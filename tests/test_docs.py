"""The commands of docs/training.md, as they stand there; and its tables, as the code makes them."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backbone_table import table

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_walk_from_a_dataset_to_a_scored_pool_runs(tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "docs/training.md").read_text(), re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) == 10
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "python"
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
        if "--dry_run" in command:
            assert "The first row" in done.stdout
    assert "step_auroc" in (tmp_path / "runs/walk/prm/README.md").read_text()
    assert (tmp_path / "runs/walk/report.html").exists()


def test_the_table_of_backbones_is_what_the_tests_prove() -> None:
    assert table() in (ROOT / "docs/add_a_backbone.md").read_text()
    assert table() in (ROOT / "README.md").read_text()
