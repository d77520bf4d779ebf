"""Mistakes at the command line: each is refused with one sentence that names the thing and the fix, and status 2."""

import io
import json
import logging
import shlex
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from pyarrow import parquet

import vlprm
from vlprm.errors import hub_refusal
from vlprm.runs import cli, config

CASES = [json.loads(line) for line in (Path(__file__).parents[1] / "fixtures/mistakes.jsonl").open()]
PROBLEM = {"id": "a", "question": "How many?", "images": ["grid.png"], "answer": "3", "answer_type": "integer"}
ROW = {"prompt": "How many?", "completions": ["one", "two"], "labels": [True, False]}
LINES: dict[str, Any] = {
    "good": PROBLEM,
    "number": {**PROBLEM, "answer": 3},
    "no_images": {**PROBLEM, "images": []},
    "no_list": {**PROBLEM, "images": "grid.png"},
    "number_as_id": {**PROBLEM, "id": 5},
    "missing": {**PROBLEM, "images": ["nope.png"]},
    "no_image": {**PROBLEM, "images": ["text.png"]},
    "above": {**PROBLEM, "images": ["../x.png"]},
    "answer_type": {**PROBLEM, "answer_type": "intger"},
    "other": {"question": "q", "steps": ["a"]},
    "trl": ROW,
    "labels": {**ROW, "labels": [True]},
    "plus": {**ROW, "labels": ["+", "-"]},
    "trl_image": {**ROW, "images": ["nope.png"]},
}
FILES = {
    "note.txt": "words",
    "text.png": "not an image",
    "empty.jsonl": "",
    "torn.jsonl": '{"id": "a", "question"',
    "twice.jsonl": (json.dumps(PROBLEM) + "\n") * 2,
    "torn.yaml": "a: [\n",
    "list.yaml": "- a\n",
    "typo.yaml": "search: {rolout: 3}\n",
    "null.yaml": "unit:\n",
    "again.yaml": "unit: 3\nsearch: {n: 2}\nunit: 4\n",
    "number.yaml": "run: 3\n",
    "torn.parquet": "words",
    "torn/config.json": "{",
    "other/config.json": '{"model_type": "bert"}',
    "folder/notes": "",
    "rewards/config.json": '{"model_type": "qwen2_5_vl"}',
    "rewards/vlprm.json": '{"head": "step", "dialect": "relative_1000"}',
    "trees/config.yaml": "run: trees\nsearch: {}\n",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the commands name."""
    folder = tmp_path_factory.mktemp("world")
    for name, text in {**FILES, **{f"{name}.jsonl": f"{json.dumps(row)}\n" for name, row in LINES.items()}}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "grid.png").write_bytes(vlprm.example_problem().images[0])
    parquet.write_table(pyarrow.table({"question": ["q"], "steps": [["a"]]}), folder / "columns.parquet")
    return folder


@pytest.mark.parametrize("case", CASES, ids=[case["command"] for case in CASES])
def test_a_mistake_is_one_sentence(
    case: dict[str, str], world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    monkeypatch.chdir(world)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "setLevel", lambda level: None)  # later tests keep theirs
    monkeypatch.setattr(config, "QUIET", {})  # and their environment
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setattr(sys, "argv", ["vlprm", *shlex.split(case["command"].replace("RUN", str(tmp_path / "run")))])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    last = said.getvalue().splitlines()[-1]
    assert last.startswith("error: ")
    assert case["says"] in last
    assert "Traceback" not in said.getvalue()
    assert "<class" not in last


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (GatedRepoError, "a/b is gated on the Hub; accept its terms there and log in with `hf auth login`"),
        (RepositoryNotFoundError, "the Hub has no a/b that you may read; correct the name, log in"),
        (ConnectionError, "the Hub cannot be reached for a/b (ConnectionError); try again later"),
    ],
)
def test_what_the_hub_refuses_has_its_cause(error: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert says in hub_refusal("a/b", error.__new__(error))
