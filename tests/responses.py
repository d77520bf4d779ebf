"""The packaged responses of real models with the options that each was given. They stay in the data folder."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Key = tuple[str, str, str]  # benchmark, output file, item
Said = tuple[str, list[str]]  # the response, the texts of the options


def responses(data: Path) -> dict[Key, Said]:
    """Every response of every run under `data`, by benchmark, name of the output file, and item."""
    found = {}
    for benchmark, read in READERS.items():
        for output, item, text, options in read(data / benchmark):
            found[benchmark, output, item] = (text, [str(option) for option in options])
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    with path.open() as file:
        return [json.loads(line) for line in file]


def _mathvista(folder: Path) -> Iterator[tuple[str, str, str, list[Any]]]:
    for path in folder.glob("outputs/*.json"):
        for item, row in json.loads(path.read_text()).items():
            yield path.stem, item, row["response"], row["choices"] or []


def _mathvision(folder: Path) -> Iterator[tuple[str, str, str, list[Any]]]:
    options = {row["id"]: row["options"] for row in _lines(folder / "test.jsonl")}
    for path in folder.glob("outputs/*.jsonl"):
        for row in _lines(path):
            yield path.stem, row["id"], row["response"], options[row["id"]]


def _mmmu(folder: Path) -> Iterator[tuple[str, str, str, list[Any]]]:
    path = folder / "outputs" / "llava1.5_13b_by_subject.json"
    for rows in json.loads(path.read_text()).values():
        for row in rows:
            options = list(row["index2ans"].values()) if row["question_type"] == "multiple-choice" else []
            yield path.stem, row["id"], row["response"], options


def _mmmu_pro(folder: Path) -> Iterator[tuple[str, str, str, list[Any]]]:
    for path in folder.glob("outputs/*.jsonl"):
        for row in _lines(path):
            options = row["options"]
            yield path.stem, row["id"], row["response"], ast.literal_eval(options) if type(options) is str else options


def _puzzlevqa(folder: Path) -> Iterator[tuple[str, str, str, list[Any]]]:
    path = folder / "outputs" / "gpt4o_outputs_single.jsonl"
    for row in _lines(path):
        yield path.stem, f"{row['_category']}/{row['_line']}", row["raw_output"], row["options"]


def _best_of_n(folder: Path) -> Iterator[tuple[str, str, str, list[Any]]]:
    path = folder / "qwen25_math_cot_100_first50.jsonl"
    for number, row in enumerate(_lines(path)):
        for candidate, text in enumerate(row["response"]):
            yield path.stem, f"{number}/{candidate}", text if isinstance(text, str) else text[0], []


READERS = {
    "mathvista": _mathvista,
    "mathvision": _mathvision,
    "mmmu": _mmmu,
    "mmmu_pro": _mmmu_pro,
    "puzzlevqa": _puzzlevqa,
    "best_of_n": _best_of_n,
}
