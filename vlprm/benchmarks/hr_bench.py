"""HR-Bench: 200 questions about 4K and 8K images, each asked with its options in four orders (DreamMr/HR-Bench).

    {"index": 0, "question": "What is the color of the umbrella?", "A": "Red", "B": "Blue", "C": "Green", "D": "White",
     "answer": "B", "category": "single", "cycle_category": "cycle_0", "image": "<base64>"}

`4k` (same as `all`) and `8k` have 800 rows each. A folder has `hr_bench_4k.tsv` and `hr_bench_8k.tsv` as on the Hub,
or `hr_bench_4k.jsonl` whose `image` is a file in the folder. Rule, from VLMEvalKit @ e8e78f0 (vlmeval/dataset/utils/,
hrbench.py and multiple_choice.py): the only letter among the words of the response, or the only option whose text it
contains; otherwise a chat model, and here our rules, choose. `average` is the mean over the orders, `single` and
`cross` are those of the categories; `all_orders` is the share of questions that are right in each order.
"""

from __future__ import annotations

import base64
import csv
import re
import sys
from collections import Counter
from collections.abc import Mapping, Set
from pathlib import Path

from vlprm.benchmarks.benchmark import (
    Benchmark,
    Hub,
    Item,
    Output,
    RawItem,
    Reading,
    everything,
    file_rows,
    image_fields,
    option_of,
    steps_prompt,
)
from vlprm.benchmarks.reading import read
from vlprm.errors import UserError
from vlprm.prompts import option_list


def rows(folder: Path, subset: str) -> list[RawItem]:
    """The rows of a size in a folder."""
    name = f"hr_bench_{'8k' if subset == '8k' else '4k'}"
    table = folder / f"{name}.tsv"
    return _table(table) if table.is_file() else file_rows(folder, (f"{name}.jsonl",), "hr_bench")


def _table(path: Path) -> list[RawItem]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # an image is a field of many megabytes
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def item(row: RawItem) -> Item:
    """The item of a row."""
    item_id = str(row["index"])
    if row["category"] not in ("single", "cross"):
        raise UserError(f"{item_id} has the category {row['category']!r}; HR-Bench has single and cross")
    options = tuple(str(row[letter]) for letter in "ABCD")
    option_of(options, row["answer"], item_id)
    return Item(
        id=item_id,
        question=row["question"].strip(),
        options=options,
        gold=(row["answer"],),
        answer=row["answer"],
        answer_type="choice",
        images=_image(row, item_id),
        groups={"category": (row["category"],), "order": (str(row["cycle_category"]),)},
        row={name: value for name, value in row.items() if name != "image"},
    )


def _image(row: RawItem, item_id: str) -> tuple[str | bytes, ...]:
    found = image_fields(row, ("image",))
    if not found or not isinstance(found[0], str) or re.search(r"\.\w{3,4}$", found[0]):
        return found  # an encoded file or the name of one
    try:
        return (base64.b64decode(found[0], validate=True),)
    except ValueError as error:
        raise UserError(f"{item_id}: its image is neither a file name nor base64; download the row again") from error


def official(item: Item, output: Output) -> Reading:
    """The rule of the authors' evaluation; our reader where it asks a chat model."""
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", output.text).split()
    found = [letter for letter in item.letters if letter in words]
    if not found:
        found = [letter for letter, option in item.letters.items() if option.lower() in output.text.lower()]
    return Reading(found[0], found[0] in item.gold) if len(found) == 1 else read(item, output)


def scores(items: Mapping[str, Item], right: Set[str]) -> dict[str, float]:
    """Means over the orders, of all items and of each category, and the share of questions right in each order."""
    found: dict[str, float] = {}
    for name in ("average", "single", "cross"):
        orders: dict[str, list[bool]] = {}
        for item in items.values():
            if name in ("average", *item.groups["category"]):
                orders.setdefault(item.groups["order"][0], []).append(item.id in right)
        if orders:
            found[name] = sum(sum(one) / len(one) for one in orders.values()) / len(orders)
    questions: dict[tuple[object, ...], bool] = {}
    seen: Counter[tuple[object, ...]] = Counter()
    for item in items.values():
        asked = (item.question, tuple(sorted(item.options)))
        seen[asked, item.groups["order"]] += 1  # two photographs may have the same question and options
        question = (*asked, seen[asked, item.groups["order"]])
        questions[question] = questions.get(question, True) and item.id in right
    return found | {"all_orders": sum(questions.values()) / len(questions)}


_PATH, _CONFIG = "DreamMr/HR-Bench", ("hrbench_version_split",)
BENCHMARK = Benchmark(
    name="hr_bench",
    subsets={"all": everything, "4k": everything, "8k": everything},
    hub={"all": Hub(_PATH, _CONFIG, "hrbench_4k", ()), "8k": Hub(_PATH, _CONFIG, "hrbench_8k", ())},
    rows=rows,
    item=item,
    prompts={
        "official": lambda item: (
            f"{item.question}\n{option_list(item.options, '{}. {}')}\nAnswer the option letter directly."
        ),
        "steps": steps_prompt,
    },
    rules={"official": official},
    scores=scores,
)
