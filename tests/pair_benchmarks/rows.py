"""Rows of pair benchmarks by hand, in the published layouts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from vlprm.tasks import TASKS

DRAWN = [TASKS["count_grid"].problem("test", i).images[0] for i in range(3)]
RIGHT, WRONG = "There are 3 red discs.\n\nThe answer is 3.", "There are 5 red discs.\n\nThe answer is 5."


def mmrb2_row(**changes: Any) -> dict[str, Any]:
    row = {
        "id": "vstar_1", "prompt_source": "vstar", "prompt_metadata": {"id": "1"}, "chosen": "B",
        "prompt_content": [["image", "input_images/a.png"], ["text", "How many discs are red?"]],
        "response_a": {"model_name": "m", "response_content": [["text", WRONG]]},
        "response_b": {
            "model_name": "n",
            "response_content": [["text", "I zoom in"], ["image", "images/b.png"], ["text", ".\n\nThe answer is 3."]],
        },
    }  # fmt: skip
    return row | changes


def write_mmrb2(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    for name, image in (("input_images/a.png", DRAWN[0]), ("images/b.png", DRAWN[1])):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image)
    (folder / "reasoning.json").write_text(json.dumps({"pairs": rows}))
    return folder


def vl_row(**changes: Any) -> dict[str, Any]:
    row = {
        "id": "mathverse_7", "query": "<image>\nHow many discs are red?", "response": [RIGHT, WRONG],
        "human_ranking": [0, 1], "image": {"bytes": DRAWN[0], "path": None}, "models": ["m", "n"],
    }  # fmt: skip
    return row | changes


def write_vl(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(list(rows))
    pyarrow.parquet.write_table(table, folder / "data/test-00000-of-00001.parquet")
    return folder


def multimodal_row(**changes: Any) -> dict[str, Any]:
    row = {
        "ID": "mathvista_12", "Text": "How many discs are red?", "Image": "images/a.png", "Output1": WRONG,
        "Output2": RIGHT, "Better": "Output2", "Category": "reasoning",
    }  # fmt: skip
    return row | changes


def write_multimodal(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "images/a.png").write_bytes(DRAWN[0])
    (folder / "all_data.json").write_text(json.dumps(list(rows)))
    return folder
