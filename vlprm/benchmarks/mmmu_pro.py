"""MMMU-Pro: the 1,730 MMMU questions that need their image, with up to 10 options (MMMU/MMMU_Pro; Apache-2.0).

    {"id": "test_History_1", "question": "...", "options": "['Political instability ...', ...]", "answer": "B",
     "subject": "History", "image_1": ...}

Subsets are the benchmark's settings: `standard_10` (same as `all`) and `standard_4`. Their options differ in number and
order, so an output is scored with the options in its own record. The rule, from mmmu-pro/evaluate.py at bb0b95a, is
MMMU's with another first step and laxer tests. It sets no seed; letters drawn on request come from MMMU's generator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from vlprm.benchmarks import mmmu
from vlprm.benchmarks.benchmark import (
    Benchmark,
    Hub,
    Item,
    Output,
    RawItem,
    Reading,
    everything,
    file_rows,
    steps_prompt,
)
from vlprm.errors import UserError
from vlprm.prompts import option_list

ITEMS = 1730  # per setting
_COT = (
    "Answer the preceding multiple choice question. The last line of your response should be of the following format: "
    "'Answer: $LETTER' (without quotes) where LETTER is one of options. Think step by step before answering."
)


def rows(folder: Path, subset: str) -> list[RawItem]:
    """The rows of the Hub, saved in the folder; the repository does not have them."""
    return file_rows(folder, (f"{subset}.jsonl", "items.jsonl"), "mmmu_pro")


def item(row: RawItem) -> Item:
    """The item of a row. Older outputs store the ten options that were asked in addition to the original four."""
    if "shuffled_options" in row:
        row = {**row, "options": row["shuffled_options"], "answer": row["shuffled_options_answer"]}
    made = mmmu.item({**row, "question_type": "multiple-choice"})
    if not made.options:
        raise UserError(f"{made.id} has no options; correct the row")
    return dataclasses.replace(made, row=row)


def official_prompt(item: Item) -> str:
    """The authors' prompt."""
    return f"{item.question}\n{option_list(item.options, '{}. {}')}\n{_COT}"


def official(item: Item, output: Output) -> Reading:
    """The authors' scorer."""
    letter = letter_in(output.text, item.letters)
    return Reading(letter, letter in item.gold)


def letter_in(response: str, letters: Mapping[str, str]) -> str | None:
    """The only letter after the last "Answer:", or else the letter in brackets, before a blank, or before a full stop.

    Of several letters before a blank or a full stop, the one with the latest occurrence between blanks wins, or the
    first if none occurs between blanks: the official scorer searches for that form.
    """
    _, named, tail = response.rpartition("Answer:")
    named_letters = [letter for letter in letters if letter in tail.strip()]
    if named and len(named_letters) == 1:
        return named_letters[0]
    response = mmmu.padded(response)
    for form, place in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        if found := mmmu.last_of(letters, form, place, response):
            return found
    return mmmu.option_in(response, letters)


_PATH = "MMMU/MMMU_Pro"
BENCHMARK = Benchmark(
    name="mmmu_pro",
    subsets={"all": everything, "standard_10": everything, "standard_4": everything},
    hub={
        "all": Hub(_PATH, ("standard (10 options)",), "test", mmmu.IMAGES),
        "standard_4": Hub(_PATH, ("standard (4 options)",), "test", mmmu.IMAGES),
    },
    rows=rows,
    item=item,
    prompts={"official": official_prompt, "steps": steps_prompt},
    rules={"official": official},
    guess=mmmu.guess,
    carried=True,
    part=lambda item, subset: ("all", ITEMS),
)
