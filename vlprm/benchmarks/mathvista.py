"""MathVista: the 1,000 problems of its testmini split, from 31 sources (lupantech/MathVista, AI4Math/MathVista).

    {"pid": "3", "question": "...", "image": "images/3.jpg", "choices": ["135°", "140°", "145°", "150°"], "unit": null,
     "precision": null, "answer": "145°", "question_type": "multi_choice", "answer_type": "text", "metadata": {...}}

CC BY-SA 4.0, for tests only: its terms forbid training on it. Rules, from evaluation/calculate_score.py at 53d5258:
`official` normalises the answer that a chat model extracted from the response and the output stores; if none is stored,
the official rules that need no model extract it, then ours. `as_published` parses integers like the scorer of October
2023, which rejects "5.0".
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vlprm.benchmarks.benchmark import (
    LETTERS,
    Benchmark,
    Groups,
    Hub,
    Item,
    Output,
    RawItem,
    Reading,
    everything,
    file_rows,
    image_fields,
    letter_of,
    steps_prompt,
)
from vlprm.prompts import option_list
from vlprm.schema import AnswerType

_ANSWER_TYPES: dict[str, AnswerType] = {"integer": "integer", "float": "float", "list": "list", "text": "choice"}
_HINTS = {
    "text": "the question and provide the correct option letter, e.g., A, B, C, D, at the end.",
    "integer": "the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, at the end.",
    "float1": "the question requiring a floating-point number with one decimal place and provide the final value, "
    "e.g., 1.2, 1.3, 1.4, at the end.",
    "float2": "the question requiring a floating-point number with two decimal places and provide the final value, "
    "e.g., 1.23, 1.34, 1.45, at the end.",
    "list": "the question requiring a Python list as an answer and provide the final list, e.g., [1, 2, 3], "
    "[1.2, 1.3, 1.4], at the end.",
}
_BREAKDOWNS = ("language", "source", "category", "task", "context", "grade", "skills")


def rows(folder: Path, subset: str) -> list[RawItem]:
    """The rows of a subset in a folder."""
    name = "items.jsonl" if subset == "images" else "testmini.json"
    return file_rows(folder, (name, f"data/{name}"), "mathvista")


def item(row: RawItem) -> Item:
    """The item of a row."""
    choices = tuple(row["choices"] or ())
    return Item(
        id=str(row["pid"]),
        question=row["question"],
        options=choices,
        gold=(row["answer"],),
        answer=letter_of(choices, row["answer"], row["pid"]) if choices else row["answer"],
        answer_type=_ANSWER_TYPES[row["answer_type"]],
        images=image_fields(row, ("decoded_image",)) or image_fields(row, ("image",)),
        groups=_groups(row),
        row=row,
    )


def _groups(row: RawItem) -> Groups:
    """Groups by breakdown. An item may have several skills and counts in each."""
    of = {name: row["metadata"][name] for name in _BREAKDOWNS}
    of = {"question_type": row["question_type"], "answer_type": row["answer_type"], **of}
    return {name: tuple(value) if isinstance(value, list) else (value,) for name, value in of.items()}


def groups(item: Item, output: Output) -> Groups:
    """Groups by the record's own metadata, as in the official scorer: the metadata was revised after most runs were
    published."""
    metadata = output.saved.get("metadata")
    complete = isinstance(metadata, Mapping) and set(_BREAKDOWNS) <= set(metadata)
    return _groups({**item.row, "metadata": metadata}) if complete else item.groups


def official_prompt(item: Item) -> str:
    """The authors' prompt."""
    kind = item.row["answer_type"]
    kind += str(int(item.row["precision"])) if kind == "float" else ""
    unit = f" (Unit: {item.row['unit']})" if item.row["unit"] else ""
    choices = f"\nChoices:\n{option_list(item.options)}" if item.options else ""
    return f"Hint: Please answer {_HINTS[kind]}\nQuestion: {item.question}{unit}{choices}"


def official(item: Item, output: Output) -> Reading:
    """The authors' current scorer."""
    return _read(item, output, lambda text: int(float(text)))


def as_published(item: Item, output: Output) -> Reading:
    """The authors' scorer of October 2023."""
    return _read(item, output, int)


def _read(item: Item, output: Output, integer: Callable[[str], int]) -> Reading:
    stored = output.saved.get("extraction")
    extraction = extract(item, output.text) if stored is None else str(stored)
    answer = normalised(item, extraction, integer)
    return Reading(answer, answer in item.gold)


def extract(item: Item, response: str) -> str:
    """The answer in a response, without the chat model that the official scorer asks: the response itself; what is
    quoted, boxed or named as the answer; or the last number. Empty if there is none."""
    response = response.strip()
    if not response or response in item.options or _number(response, float) is not None:
        return response
    for pattern in (r'[Tt]he answer is "(.*)"\.', r"\\boxed\{([^{}]*)\}", r"[Aa]nswer(?: is|:)[ *]*([^\n]*)"):
        if found := re.findall(pattern, response):
            response = found[-1].strip()
            break
    if item.options:
        letter = re.findall(r"\b([A-Z])\b", response)
        return str(letter[-1]) if letter else response
    is_list = item.row["answer_type"] == "list"
    found = re.findall(r"\[[^\[\]]*\]" if is_list else r"-?\d+(?:,\d{3})*(?:\.\d+)?", response)
    last = str(found[-1]) if found else ""
    return last if is_list else last.replace(",", "")


def _number(text: str, kind: Callable[[str], int | float]) -> int | float | None:
    try:
        return kind(text)
    except (ValueError, OverflowError):
        return None


def normalised(item: Item, extraction: str, integer: Callable[[str], int]) -> str | None:
    """The extraction in the gold answer's form, with which it is compared as text; None if it has the wrong type."""
    if item.options:
        return nearest_option(item.options, extraction.strip()) if extraction.strip() else None
    kind = item.row["answer_type"]
    if kind == "integer":
        whole = _number(extraction, integer)
        return None if whole is None else str(whole)
    if kind == "float":
        number = _number(extraction, float)
        return None if number is None else str(round(number, int(item.row["precision"])))
    return extraction or None


def nearest_option(options: Sequence[str], extraction: str) -> str:
    """The option that the first letter in brackets names, or an extraction of one letter; else the option nearest in
    edit distance."""
    if bracketed := re.search(r"\(([a-zA-Z])\)", extraction):
        extraction = bracketed[1].upper()
    if len(extraction) == 1 and extraction in LETTERS[: len(options)]:
        return options[LETTERS.index(extraction)]
    return min(options, key=lambda option: edit_distance(extraction, option))


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance: the minimum number of inserted, deleted and substituted characters."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def guess(item: Item, output: Output, rng: random.Random) -> str | None:
    """The official scorer takes the option nearest to the empty text, which is the shortest."""
    return min(item.options, key=len) if item.options else None


_HUB = Hub("AI4Math/MathVista", (None,), "testmini", ("decoded_image",))
BENCHMARK = Benchmark(
    name="mathvista",
    subsets={"all": everything, "testmini": everything, "images": everything},
    hub={"all": _HUB},
    rows=rows,
    item=item,
    prompts={"official": official_prompt, "steps": steps_prompt},
    rules={"official": official, "as_published": as_published},
    guess=guess,
    groups=groups,
)
