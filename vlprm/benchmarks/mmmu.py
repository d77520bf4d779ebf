"""MMMU: the 900 validation questions on college subjects (MMMU-Benchmark/MMMU, MMMU/MMMU; Apache-2.0).

    {"id": "validation_Biology_25", "question": "Consider the diagram in <image 1> ...", "options": "['Species 1 only',
     ...]", "answer": "A", "question_type": "multiple-choice", "image_1": ...}

The repository has the gold answers (answer_dict_val.json), the Hub the questions. A folder may have both, or only the
gold answers, which are enough for outputs that contain their options. Rules, from eval/eval_utils.py at bb0b95a. If the
official scorer finds no letter, it draws one from a generator that is seeded once and used in the order of the
subjects. Here these items have *no answer*, or a drawn one on request; the score of the other items is exact.
"""

from __future__ import annotations

import ast
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from vlprm.benchmarks.benchmark import (
    Benchmark,
    Hub,
    Item,
    NoItems,
    Output,
    RawItem,
    Reading,
    everything,
    file_rows,
    image_fields,
    steps_prompt,
)
from vlprm.errors import UserError
from vlprm.prompts import option_list

DOMAINS = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy",
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        "Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics", "Energy_and_Power",
        "Materials", "Mechanical_Engineering",
    ),
}  # fmt: skip
SUBJECTS = tuple(sorted(chain(*DOMAINS.values())))
IMAGES = tuple(f"image_{number}" for number in range(1, 8))
_PUNCTUATION = (",", ".", "!", "?", ";", ":", "'")
_INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
# Numbers with thousands commas, in scientific notation, and plain. No digit may precede a number, so that a run of
# digits is matched once and not from each digit.
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?(?<!\d)\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:(?<!\d)\d+\.\d+|\.\d+|(?<!\d)\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)


def rows(folder: Path, subset: str) -> list[RawItem]:
    """The gold answers, each with its question if the folder has it."""
    try:
        questions = file_rows(folder, ("items.jsonl",), "mmmu")
    except NoItems:
        if subset == "images":
            raise
        questions = []
    if subset == "images":
        return questions
    known = {row["id"]: row for row in questions}
    gold = file_rows(folder, ("answer_dict_val.json", "mmmu/answer_dict_val.json"), "mmmu")
    return [{**known.get(row["id"], {}), **row, "answer": row["ground_truth"]} for row in gold]


def subject_of(item_id: str) -> str:
    """The subject in an id such as `validation_Art_Theory_3`. UserError if there is none."""
    found = re.fullmatch(r"[a-z]+_(\w+)_\d+", item_id)
    if not found or found[1] not in SUBJECTS:
        raise UserError(f"{item_id!r} is not an MMMU id; ids have the form split_Subject_number")
    return found[1]


def item(row: RawItem) -> Item:
    """The item of a row."""
    subject = subject_of(row["id"])
    gold = as_list(row["answer"]) if isinstance(row["answer"], list) or str(row["answer"]).startswith("[") else None
    gold = gold or [str(row["answer"])]
    choice = row.get("question_type", "multiple-choice") == "multiple-choice"
    options = tuple(as_list(row.get("options") or []))
    return Item(
        id=row["id"],
        question=row.get("question", ""),
        options=options,
        gold=tuple(gold),
        answer=gold[0],
        answer_type="choice" if choice else "text",
        images=image_fields(row, ("image", *IMAGES)),
        groups={"subject": (subject,), "domain": (domain_of(subject),)},
        row=row,
    )


def domain_of(subject: str) -> str:
    """The domain of a subject."""
    return next(domain for domain, subjects in DOMAINS.items() if subject in subjects)


def as_list(value: Any) -> list[str]:
    """A list, or the text of a Python list, as the Hub stores options. UserError for anything else."""
    try:
        value = ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise UserError(f"{str(value)[:80]!r} is not a list of options; correct the row") from error
    if not isinstance(value, list):
        raise UserError(f"{str(value)[:80]!r} is not a list of options; correct the row")
    return [str(option) for option in value]


def official_prompt(item: Item) -> str:
    """The authors' prompt."""
    if item.answer_type == "choice":
        ask = "Answer with the option's letter from the given choices directly."
        return f"{item.question}\n\n{option_list(item.options)}\n\n{ask}"
    return f"{item.question}\n\nAnswer the question using a single word or phrase."


def official(item: Item, output: Output) -> Reading:
    """The authors' scorer."""
    if item.answer_type != "choice":
        said = open_answers(output.text) if output.text.strip() else []
        return Reading(str(said[0]) if said else None, open_is_right(item.gold, said))
    if len(output.text) == 1 and output.text.isupper():  # an "eval only" file stores just the letter
        return Reading(output.text, output.text in item.gold)
    letter = letter_in(output.text, letters_of(item, output)) if output.text.strip() else None
    return Reading(letter, letter in item.gold)


def letters_of(item: Item, output: Output) -> Mapping[str, str]:
    """Letter -> option, from the output's record or else the item. UserError if neither has options."""
    carried = output.saved.get("index2ans")
    letters = {k: str(v) for k, v in carried.items()} if isinstance(carried, Mapping) and carried else item.letters
    if not letters:
        raise UserError(
            f"{item.id} has no options in the folder or in its output's record; "
            "give outputs with all_choices and index2ans, or the Hub's rows as items.jsonl"
        )
    return letters


def letter_in(response: str, letters: Mapping[str, str]) -> str | None:
    """The letter that a response chooses: in brackets, between blanks, or (in more than five words) the option whose
    text it contains; if there are several, the last one. None if there is none."""
    response = padded(response)
    found = last_of(letters, "({})", "({})", response) or last_of(letters, " {} ", " {} ", response)
    return found or option_in(response, letters)


def padded(response: str) -> str:
    """The response without surrounding punctuation, between blanks."""
    for mark in _PUNCTUATION:
        response = response.strip(mark)
    return f" {response} "


def last_of(letters: Iterable[str], form: str, place: str, response: str) -> str | None:
    """The letter, among those that occur as `form`, whose last occurrence as `place` is the latest."""
    found = [letter for letter in letters if form.format(letter) in response]
    return max(found, key=lambda letter: response.rfind(place.format(letter)), default=None)


def option_in(response: str, letters: Mapping[str, str]) -> str | None:
    """The letter of the last option whose text occurs in a response of more than five words; None if there is none."""
    lowered = response.lower()
    found = [letter for letter, option in letters.items() if option.lower() in lowered]
    if len(response.split()) <= 5 or not found:
        return None
    return max(found, key=lambda letter: lowered.rfind(letters[letter].lower()))


def open_answers(response: str) -> list[str | float]:
    """Possible answers in a response, normalised: for each line the shortest text after a word such as "is" (the full
    response if there is none), and every number in them."""
    lines = response.strip().strip(".").lower().split("\n")
    tails = [tail for line in lines[:-1] if (tail := _tail(line, _INDICATORS))]
    tails += [tail for tail in (_tail(lines[-1], (*_INDICATORS, "=")),) if tail]
    said = tails or [response.strip().strip(".").lower()]
    numbers = [number for text in said for pattern in _NUMBERS for number in pattern.findall(text)]
    return list(dict.fromkeys(chain.from_iterable(_normalised(text) for text in [*said, *numbers])))


def _tail(line: str, indicators: Sequence[str]) -> str | None:
    tails = [line.split(indicator)[-1].strip() for indicator in indicators if indicator in line]
    shortest = ""
    for tail in tails:  # an empty tail is replaced by the next one, whatever its length
        shortest = tail if not shortest or len(tail) < len(shortest) else shortest
    return None if not shortest or shortest in _PUNCTUATION else shortest


def _normalised(text: str) -> list[str | float]:
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]  # a single letter occurs in nearly every text


def open_is_right(gold: Sequence[str], said: Sequence[str | float]) -> bool:
    """Whether a gold text occurs in a possible answer, or a possible answer equals a gold number."""
    golds = list(chain.from_iterable(_normalised(text) for text in gold))
    texts = [text for text in golds if isinstance(text, str)]
    numbers = {number for number in golds if isinstance(number, float) and not math.isnan(number)}
    return any(any(t in s for t in texts) if isinstance(s, str) else s in numbers for s in said)


def guess(item: Item, output: Output, rng: random.Random) -> str | None:
    """A random letter; None for questions without options."""
    return rng.choice(list(letters_of(item, output))) if item.answer_type == "choice" else None


_HUB = Hub("MMMU/MMMU", SUBJECTS, "validation", IMAGES)
BENCHMARK = Benchmark(
    name="mmmu",
    subsets={"all": everything, "images": everything},
    hub={"all": _HUB},
    rows=rows,
    item=item,
    prompts={"official": official_prompt, "steps": steps_prompt},
    rules={"official": official},
    order=subject_of,
    guess=guess,
)
