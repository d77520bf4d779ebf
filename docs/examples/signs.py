"""A benchmark outside the package, as a user adds one: a folder with `items.jsonl` and its images.

{"id": "1", "question": "Which sign?", "options": ["stop", "yield"], "answer": "A", "image": "1.png", "place": "city"}

python -m eval.run --policy builtin/policy --benchmarks '[{name: docs.examples.signs, data: FOLDER}]' \\
        --methods '[self_consistency]' --run RUN
python -m eval.report --tasks '[docs.examples.signs]' --run RUN
"""

from __future__ import annotations

from pathlib import Path

from vlprm.answers import extract_answer
from vlprm.benchmarks.benchmark import Benchmark, Item, Output, RawItem, Reading, everything, file_rows, steps_prompt
from vlprm.steps import split_steps


def rows(folder: Path, subset: str) -> list[RawItem]:
    return file_rows(folder, ["items.jsonl"], "signs")


def item(row: RawItem) -> Item:
    groups = {"place": (row["place"],)}
    return Item(
        row["id"], row["question"], tuple(row["options"]), (row["answer"],), row["answer"], "choice", (row["image"],),
        groups, row,
    )  # fmt: skip


def official(item: Item, output: Output) -> Reading:
    answer = extract_answer(split_steps(output.text), "choice", item.options)
    return Reading(answer, answer == item.answer)


BENCHMARK = Benchmark("signs", {"all": everything}, {}, rows, item, {"steps": steps_prompt}, {"official": official})
