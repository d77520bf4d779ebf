"""Writers for trainers of other projects: ms-swift, LLaMA-Factory, and the preference pairs of TRL's DPO."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from datasets import Image, List, Value

from data_synth.formats.writers import Target, chat
from vlprm.data.importing import DatasetRow, Record
from vlprm.data.trl_format import TURNS
from vlprm.schema import path_to
from vlprm.steps import join_steps, parse_step

TURN = {"role": Value("string"), "content": Value("string")}
_IMAGES = List(Image(decode=False))
TARGETS: dict[str, dict[str, Any]] = {
    "messages": {"messages": List(TURN), "images": _IMAGES},
    "dpo": {"prompt": TURNS, "chosen": TURNS, "rejected": TURNS, "images": _IMAGES},
}


def messages(row: DatasetRow, target: Target) -> Iterator[Record]:
    """The turns of the chat format as `messages`, which ms-swift reads as they are, and LLaMA-Factory with role and
    content as the tags of its sharegpt formatting."""
    for record in chat(row, target):
        yield {"messages": record["conversations"], "images": record["images"]}


def dpo(row: DatasetRow, target: Target) -> Iterator[Record]:
    """Pairs of a right and a wrong step after the same steps: for each step whose next ones are labelled both ways, the
    one with the highest and the one with the lowest target. Both answers begin with the shared steps. Images are parts
    of the user's turn: before a turn that is a text, TRL puts them itself, so a mark in the text would stay there."""
    prompt = [
        {"role": "user", "content": [{"type": "image", "text": None}] * len(row["images"]) + _part(row["prompt"])}
    ]
    found = 0
    for best, worst in _pairs(row, target):
        answers = ([{"role": "assistant", "content": _part(_text(row, node))}] for node in (best, worst))
        yield {"prompt": prompt, **dict(zip(("chosen", "rejected"), answers, strict=True)), "images": row["images"]}
        found += 1
    target.lost["rows without a right and a wrong step after the same steps"] += not found


def _part(text: str) -> list[dict[str, str | None]]:
    return [{"type": "text", "text": text}]


def _pairs(row: DatasetRow, target: Target) -> Iterator[tuple[int, int]]:
    labels = row["labels"]
    labelled = sorted((n for n, label in enumerate(labels) if label is not None), key=lambda n: row["parents"][n])
    for _, siblings in itertools.groupby(labelled, key=lambda n: row["parents"][n]):
        nodes = list(siblings)
        best, worst = (choose(nodes, key=lambda n: labels[n]) for choose in (max, min))
        if target.hard(labels[best]) and not target.hard(labels[worst]):
            yield best, worst


def _text(row: DatasetRow, node: int) -> str:
    return join_steps(parse_step(row["completions"][n]) for n in path_to(node, row["parents"]))


WRITERS: dict[str, Callable[[DatasetRow, Target], Iterator[Record]]] = {
    "messages": messages,
    "dpo": dpo,
}
