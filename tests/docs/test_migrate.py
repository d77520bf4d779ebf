"""The commands of docs/migrate.md: conversions run on rows of each format; of training commands the settings are parsed
and the rows are read."""

from __future__ import annotations

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from data_synth import convert
from data_synth.formats.config import ConvertConfig
from train.reward.config import PrmConfig
from vlprm.data.trl_format import TrainingRows
from vlprm.runs.config import parse
from vlprm.runs.recipes import recipe
from vlprm.tasks import TASKS

PAGE = Path(__file__).parents[2] / "docs/migrate.md"
STEPWISE = {"prompt": "How many?", "completions": ["3 red", "so 4"], "labels": [True, False]}
ROWS: dict[str, dict[str, Any]] = {
    "From TRL's PRMTrainer": STEPWISE,
    "From axolotl": STEPWISE,
    "From VL-PRM": {
        "image": "a.png",
        "question": "How many?",
        "answer": "4",
        "steps_with_score": [
            {"step": "3 red", "score": 1.0, "num_mc_correct": 16, "num_mc_total": 16},
            {"step": "so 4", "score": 0.0, "num_mc_correct": 0, "num_mc_total": 16},
        ],
    },
    "From MM-PRM": {
        "image": "a.png",
        "conversations": [
            {"from": "human", "value": "Question: How many?\nProcess: 3 red<prm>so 4<prm>"},
            {"from": "gpt", "value": [1.0, 0.0]},
        ],
    },
}


def sections() -> dict[str, list[str]]:
    """The commands of each section."""
    parts = re.split(r"^## (.*)\n", PAGE.read_text(), flags=re.MULTILINE)[1:]
    blocks = {title: re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for title, text in list(pairwise(parts))[::2]}
    return {title: "".join(found).splitlines() for title, found in blocks.items()}


@pytest.mark.parametrize("title", sections())
def test_the_commands_of_a_section_run(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = {command: shlex.split(command) for command in sections()[title]}
    trained = [
        parse(PrmConfig, words[3:]) for words in configs.values() if words[2] == "train.prm"
    ]  # here, with configs/
    monkeypatch.chdir(tmp_path)
    name = "steps.jsonl" if ROWS[title] is STEPWISE else "rows.jsonl"
    Path(name).write_text(json.dumps(ROWS[title]) + "\n")
    Path("images").mkdir()
    Path("images/a.png").write_bytes(TASKS["count_grid"].problem("test", 0).images[0])
    for words in configs.values():
        if words[2] == "data_synth.convert":
            convert.main(parse(ConvertConfig, words[3:]))
    (config,) = trained
    (row,) = TrainingRows(config.dataset)  # as training reads them
    assert (row["prompt"], row["completions"], row["labels"]) == ("How many?", ["3 red", "so 4"], [1.0, 0.0])
    assert len(row["images"]) == ("image" in ROWS[title])


def test_every_recipe_of_the_page_exists() -> None:
    for name in re.findall(r"configs/[\w/]+\.yaml", PAGE.read_text()):
        assert recipe(name)
