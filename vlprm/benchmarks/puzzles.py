"""Common parts of PuzzleVQA and AlgoPuzzleVQA: items, prompts, rules (declare-lab/LLM-PuzzleTest @ 9b3a074; MIT).

    {"image": "images/venn/venn_0000.png", "question": "What is the missing number ...?",
     "options": ["9", "1", "6", "3"], "answer": 3, ...}

A category is a file of 100 lines and is scored separately. An item's id is the name of its image: `venn_0000`. Options
and answers are numbers in some categories and texts in others; both become texts, otherwise 600 items have no correct
option.

`official` is the rule of the 2024 scripts, which VL-PRM uses too: the last "(X)" with X from A to D, or else the last
capital A to D anywhere ("Daniel" counts); a letter beyond the options means the first option. If nothing is found, the
official script asks the model again and stores the result as the output's `pred`, which is used if present.
`multiple_choice_2025` is the rule of the 2025 scripts without their second call; it is far laxer.
"""

from __future__ import annotations

import dataclasses
import re
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vlprm.benchmarks.benchmark import (
    LETTERS,
    Benchmark,
    Hub,
    Item,
    Output,
    RawItem,
    Reading,
    everything,
    file_rows,
    image_fields,
    letter_of,
    read_rows,
    steps_prompt,
)
from vlprm.errors import UserError
from vlprm.prompts import option_list

LINES = 100  # per category
_PUNCTUATION = str.maketrans("", "", string.punctuation.replace(":", ""))


def puzzle_rows(name: str, categories: Sequence[str]) -> Callable[[Path, str], list[RawItem]]:
    """A function that reads `items.jsonl`, or one file per category as in the repository."""

    def rows(folder: Path, subset: str) -> list[RawItem]:
        base = folder / "data" if (folder / "data").is_dir() else folder
        files = [(category, base / f"{category}.json") for category in categories]
        if (folder / "items.jsonl").is_file() or not any(file.is_file() for _, file in files):
            return file_rows(folder, ("items.jsonl",), name)
        found = [(category, read_rows(file)) for category, file in files if file.is_file()]
        return [
            {"_category": category, "_line": line, **row} for category, lines in found for line, row in enumerate(lines)
        ]

    return rows


def key(record: RawItem) -> str | None:
    """The id of a record's image, from its category and line or its name, or the record's own id."""
    category, line, image = record.get("_category"), record.get("_line"), record.get("image")
    if isinstance(category, str) and isinstance(line, int):
        return f"{category}_{line:04d}"
    if isinstance(image, str):
        return Path(image).stem
    named = record.get("id", record.get("key"))
    return str(named) if isinstance(named, str) else None


def place(item_id: str) -> tuple[str, int]:
    """The category and line of an id. UserError if it is malformed."""
    found = re.fullmatch(r"(\w+)_(\d{4})", item_id)
    if not found or int(found[2]) >= LINES:
        raise UserError(f"{item_id!r} is not a puzzle id; ids have the form category_number, number below {LINES}")
    return found[1], int(found[2])


def puzzle_item(
    categories: Sequence[str], groups: Callable[[str], Mapping[str, tuple[str, ...]]]
) -> Callable[[RawItem], Item]:
    """A function that makes the item of a row."""

    def item(row: RawItem) -> Item:
        item_id = str(key(row))
        category, _ = place(item_id)
        if category not in categories:
            raise UserError(f"{item_id!r} has none of the categories {', '.join(categories)}")
        options, answer = tuple(map(str, row["options"])), str(row["answer"])
        return Item(
            id=item_id,
            question=str(row["question"]).rstrip(),
            options=options,
            gold=(answer,),
            answer=letter_of(options, answer, item_id),
            answer_type="choice",
            images=image_fields(row, ("image",)),
            groups={"category": (category,), **groups(category)},
            row=row,
        )

    return item


def official_prompt(item: Item, addition: str = "") -> str:
    """The authors' prompt; `addition` follows the question."""
    ask = "Answer: Let's describe the image first and think step by step."
    return f"Question: {item.question}{addition}\nOptions:\n{option_list(item.options)}\n\n{ask}"


def official(item: Item, output: Output) -> Reading:
    """The rule of the 2024 scripts."""
    stored = output.saved.get("pred")
    answer = stored if isinstance(stored, str) and stored else extract(output.text, item.options)
    return Reading(answer if answer in item.options else None, answer in item.gold)


def extract(response: str, options: Sequence[str]) -> str | None:
    """The option of the last letter, or the first option if that letter is beyond the options; None without a
    letter."""
    letters = re.findall(r"\(([ABCD])\)", response) or re.findall("[ABCD]", response)
    return _option(letters[-1], options) if letters else None


def _option(letter: str, options: Sequence[str]) -> str:
    return dict(zip("ABCD", options, strict=False)).get(letter, options[0])


def multiple_choice_2025(item: Item, output: Output) -> Reading:
    """Reads "(X)" only if it occurs once, otherwise the full text. It is correct if its only capital is the right one,
    or if it contains the answer."""
    letters = re.findall(r"\(([ABCD])\)", output.text)
    answer = _option(letters[0], item.options) if len(letters) == 1 else output.text
    capitals, gold = re.findall("[ABCD]", answer), item.gold[0].lower()
    right = capitals == [LETTERS[item.options.index(item.gold[0])]]
    right = right or gold in answer.translate(_PUNCTUATION).lower() or answer.lower() == gold
    return Reading(answer.strip() or None, bool(answer.strip()) and right)


def puzzle_benchmark(
    name: str,
    hub: str,
    categories: Sequence[str],
    groups: Callable[[str], Mapping[str, tuple[str, ...]]],
    prompt: Callable[[Item], str],
) -> Benchmark:
    """The benchmark of these categories. Its subset `first_50` is VL-PRM's: the first 50 lines of each category."""
    return Benchmark(
        name=name,
        subsets={"all": everything, "first_50": lambda item: place(item.id)[1] < 50},
        hub={"all": Hub(hub, tuple(categories), "train", ("image",))},
        rows=puzzle_rows(name, categories),
        item=puzzle_item(categories, groups),
        prompts={"official": prompt, "steps": steps_prompt},
        rules={"official": official, "multiple_choice_2025": multiple_choice_2025},
        key=key,
        carried=True,
        part=lambda item, subset: (place(item.id)[0], _lines(subset)),
        rest=lambda item, subset: [
            dataclasses.replace(item, id=f"{place(item.id)[0]}_{line:04d}") for line in range(_lines(subset))
        ],
    )


def _lines(subset: str) -> int:
    return 50 if subset == "first_50" else LINES
