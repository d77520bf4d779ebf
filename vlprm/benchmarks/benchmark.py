"""The type of a published answer benchmark: where its items are, how they are asked, and how answers are scored.

One file in this package describes each benchmark, and `BENCHMARKS` in `vlprm/benchmarks/__init__.py` lists them. An
item is made from a row, and rows from a folder and from the Hub are alike, so only reading the rows differs.

    items = load_items(BENCHMARKS["mathvision"], Path("data/mathvision"), "testmini")
    problem = as_problem(BENCHMARKS["mathvision"], items["4"], Path("data/mathvision"), "steps")
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from vlprm.errors import ProblemError, UserError, hub_refusal
from vlprm.images import LeadsOut, open_image, read_inside
from vlprm.prompts import option_list
from vlprm.schema import AnswerType, Problem

RawItem = Mapping[str, Any]
Groups = Mapping[str, tuple[str, ...]]  # a breakdown, such as `subject`, and the groups in it that an item counts in
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Item:
    """A question of a benchmark.

    `gold` are the answers that the official scorer accepts; `answer` is the same in our form: a letter if one of
    `options` is to be chosen. `images` are file names or encoded files. `row` is the original row.
    """

    id: str
    question: str
    options: tuple[str, ...]
    gold: tuple[str, ...]
    answer: str
    answer_type: AnswerType
    images: tuple[str | bytes, ...]
    groups: Groups
    row: RawItem = field(repr=False)

    @property
    def letters(self) -> dict[str, str]:
        """The options by letter."""
        return dict(zip(LETTERS, self.options, strict=False))


@dataclass(frozen=True)
class Output:
    """A model's output for an item: its text and the other fields of its record (a stored extraction, a verdict)."""

    id: str
    text: str
    saved: RawItem = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """The result of scoring an output by a rule. An `answer` of None is *no answer*, which is never correct."""

    answer: str | None
    correct: bool = False


@dataclass(frozen=True)
class Hub:
    """The place of a benchmark on the Hub: `load_dataset(path, config, split=split)` for each config, with images in
    `columns`. Several splits are joined by `+`; a row gets its own as `_split`."""

    path: str
    configs: tuple[str | None, ...]
    split: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark. `rows` and `item` raise UserError for missing or malformed files.

    Args:
        name: its name in `BENCHMARKS`.
        subsets: subset name -> whether an item belongs to it; `all` has every item.
        hub: subset name -> its place on the Hub.
        rows: (folder, subset) -> rows.
        item: row -> item.
        prompts: style name -> text of the user's turn for an item. `official` is the authors' prompt.
        rules: rule name -> how an output is scored. `official` is the current version of the authors' scorer.
        key: record of an output -> id of its item.
        order: item id -> sort key of the order in which the official scorer draws guesses.
        guess: the official scorer's guess if a response has no answer; None if it does not guess.
        groups: groups that an item counts in; an output's own record may override them.
        carried: whether an output's record contains its item and is scored by it, as the official scorer does.
        part: (carried item, subset) -> its part of the benchmark and the number of items in that part.
        rest: stand-ins for the items of that part, if their ids are known without a folder.
        scores: (items by id, ids of right answers) -> the scores that its authors publish beside accuracy.
    """

    name: str
    subsets: Mapping[str, Callable[[Item], bool]]
    hub: Mapping[str, Hub]
    rows: Callable[[Path, str], list[RawItem]]
    item: Callable[[RawItem], Item]
    prompts: Mapping[str, Callable[[Item], str]]
    rules: Mapping[str, Callable[[Item, Output], Reading]]
    key: Callable[[RawItem], str | None] = lambda record: plain_key(record)
    order: Callable[[str], str] = lambda item_id: ""
    guess: Callable[[Item, Output, random.Random], str | None] = lambda item, output, rng: None
    groups: Callable[[Item, Output], Groups] = lambda item, output: item.groups
    carried: bool = False
    part: Callable[[Item, str], tuple[str, int]] = lambda item, subset: ("all", 0)
    rest: Callable[[Item, str], Sequence[Item]] = lambda item, subset: ()
    scores: Callable[[Mapping[str, Item], Set[str]], dict[str, float]] = lambda items, right: {}


def plain_key(record: RawItem) -> str | None:
    """The id of a record, under any field name of the public layouts and ours; None if it has none."""
    for name in ("id", "pid", "key"):
        if isinstance(record.get(name), str | int):
            return str(record[name])
    return None


def load_items(benchmark: Benchmark, folder: Path, subset: str = "all") -> dict[str, Item]:
    """The items of a subset in a folder, by id. UserError if the folder or a row does not belong to the benchmark."""
    return _items(benchmark, benchmark.rows(folder, _known_subset(benchmark, subset)), subset, str(folder))


def items_from_hub(benchmark: Benchmark, subset: str = "all") -> dict[str, Item]:
    """The items of a subset from the Hub, including images; same items as from a folder."""
    hub = benchmark.hub.get(_known_subset(benchmark, subset), benchmark.hub["all"])
    return _items(benchmark, hub_rows(hub), subset, hub.path)


def hub_rows(hub: Hub) -> list[RawItem]:
    """The rows of a place on the Hub, with images as encoded files. UserError if it cannot be read."""
    from datasets import Image, List, load_dataset

    rows: list[RawItem] = []
    for config, split in product(hub.configs, hub.split.split("+")):
        try:
            dataset = load_dataset(hub.path, config, split=split)
        except OSError as error:
            raise UserError(f"{hub_refusal(hub.path, error)} with data") from error
        for column in set(hub.columns) & set(dataset.column_names):
            file = Image(decode=False)
            several = isinstance(dataset.features[column], List)
            dataset = dataset.cast_column(column, List(file) if several else file)
        rows += [{"_category": config, "_split": split, "_line": line, **row} for line, row in enumerate(dataset)]
    return rows


def _known_subset(benchmark: Benchmark, subset: str) -> str:
    if subset not in benchmark.subsets:
        raise UserError(f"{benchmark.name} has no subset {subset!r}; known: {', '.join(benchmark.subsets)}")
    return subset


def _items(benchmark: Benchmark, rows: Iterable[RawItem], subset: str, source: str) -> dict[str, Item]:
    items: dict[str, Item] = {}
    for number, row in enumerate(rows, 1):
        try:
            item = benchmark.item(row)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise UserError(f"{source}: row {number} is not an item of {benchmark.name} ({error!r})") from error
        if item.id in items:
            raise UserError(f"{source} has two items with the id {item.id!r}; remove one")
        items[item.id] = item
    return {item_id: item for item_id, item in items.items() if benchmark.subsets[subset](item)}


def as_problem(benchmark: Benchmark, item: Item, folder: Path, style: str = "official") -> Problem:
    """The item as a problem, with the prompt of a style. ProblemError if an image is missing or cannot be opened."""
    if style not in benchmark.prompts:
        raise UserError(f"{benchmark.name} has no prompt style {style!r}; known: {', '.join(benchmark.prompts)}")
    if not item.images:
        raise ProblemError("no_image", f"{item.id} of {benchmark.name} has no images; correct the row")
    images = tuple(_image(item, image, folder.resolve()) for image in item.images)
    meta = {"choices": list(item.options), "question_type": next(iter(item.groups.values()), ("",))[0]}
    question = benchmark.prompts[style](item)
    return Problem(item.id, benchmark.name, question, images, item.answer, item.answer_type, meta)


def _image(item: Item, image: str | bytes, folder: Path) -> bytes:
    if isinstance(image, bytes):
        return image
    try:
        data = read_inside(folder, image)
        open_image(data, f"{item.id}: {image}")
    except LeadsOut as error:
        raise ProblemError("image_outside", f"{item.id}: {error}") from error
    except OSError as error:
        raise ProblemError("image_missing", f"{item.id}: there is no image {image!r} in {folder.name}") from error
    except ValueError as error:
        raise ProblemError("image_unreadable", str(error)) from error
    return data


def image_fields(row: RawItem, names: Iterable[str]) -> tuple[str | bytes, ...]:
    """The images of a row, in the order of the column names: file names, or encoded files from the Hub."""
    found: list[str | bytes] = []
    for name in names:
        image = row.get(name)
        if isinstance(image, Mapping) and image.get("bytes"):
            found.append(image["bytes"])
        elif isinstance(image, str) and image:
            found.append(image)
    return tuple(found)


def steps_prompt(item: Item) -> str:
    """The question and its options; the policy's template (vlprm/prompts.py) asks for tagged steps."""
    return f"{item.question}\n{option_list(item.options)}" if item.options else item.question


def letter_of(options: Sequence[str], answer: str, item_id: str) -> str:
    """The letter of the option that is the answer. UserError if no option is."""
    if answer not in options:
        raise UserError(f"{item_id}: the answer {answer!r} is not one of its options {list(options)}; correct the row")
    return LETTERS[list(options).index(answer)]


def option_of(options: Sequence[str], letter: str, item_id: str) -> str:
    """The option with a letter. UserError if there is none."""
    if len(letter) != 1 or letter not in LETTERS[: len(options)]:
        raise UserError(
            f"{item_id}: the answer {letter!r} is not a letter of its {len(options)} options; correct the row"
        )
    return options[LETTERS.index(letter)]


def everything(item: Item) -> bool:
    """The subset of all items."""
    return True


class NoItems(UserError):
    """The folder has no file of the benchmark's items."""


def file_rows(folder: Path, names: Sequence[str], benchmark: str) -> list[RawItem]:
    """The rows of the first of these files that exists in the folder. NoItems if none does."""
    for name in names:
        if (folder / name).is_file():
            return read_rows(folder / name)
    raise NoItems(
        f"{folder} has no items of {benchmark}; it must have one of {', '.join(names)}, as in the public repository"
    )


def read_rows(path: Path) -> list[RawItem]:
    """The objects of a JSON or JSON Lines file. In an object of objects, the keys become `id`."""
    text = decoded(path)
    try:
        if path.suffix == ".json" and not _is_lines(text):
            whole = json.loads(text)
            return [{"id": key, **row} for key, row in whole.items()] if isinstance(whole, dict) else list(whole)
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} does not hold JSON objects ({error}); download it again") from error


def _is_lines(text: str) -> bool:
    """Whether a `.json` file has JSON Lines, as in some repositories: its first line is an object and others follow."""
    first, _, rest = text.strip().partition("\n")
    try:
        return bool(rest) and isinstance(json.loads(first), dict)
    except ValueError:
        return False


def decoded(path: Path) -> str:
    """The text of a JSON file in any JSON encoding. UserError if it cannot be decoded."""
    if not path.is_file():
        raise UserError(f"there is no file {path}; check the path")
    data = path.read_bytes()
    try:
        return data.decode(json.detect_encoding(data))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not in UTF-8 (byte {error.start}); convert it to UTF-8") from error
