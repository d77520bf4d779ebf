"""V*: 191 questions about small objects in large photographs (craigwu/vstar_bench, lmms-lab-encoder/vstar-bench). Its
authors' repository, penghao-wu/vstar, is MIT; the page of the dataset states no licence.

    {"question_id": 0, "image": "direct_attributes/sa_4690.jpg", "text": "What is the glove made of?\\n(A) rubber
     \\n(B) cotton\\n(C) kevlar\\n(D) leather\\nAnswer with the option's letter from the given choices directly.",
     "category": "direct_attributes", "label": "A"}

A folder has `test_questions.jsonl` and the images. The authors' script compares the likelihoods of the options, which
needs no text; the rule here reads the letter, as VLMEvalKit and lmms-eval do. Give the policy zoom steps
(docs/zoom.md), or downscaling hides what is asked about.
"""

from __future__ import annotations

from pathlib import Path

from vlprm.benchmarks.benchmark import (
    Benchmark,
    Hub,
    Item,
    RawItem,
    file_rows,
    image_fields,
    option_of,
    steps_prompt,
)
from vlprm.benchmarks.reading import parted, read
from vlprm.errors import UserError

CATEGORIES = ("direct_attributes", "relative_position")
_ASK = "Answer with the option's letter from the given choices directly."


def rows(folder: Path, subset: str) -> list[RawItem]:
    """The rows of a folder."""
    return file_rows(folder, ("test_questions.jsonl",), "vstar")


def item(row: RawItem) -> Item:
    """The item of a row."""
    if row["category"] not in CATEGORIES:
        raise UserError(f"{row['question_id']} has the category {row['category']!r}; V* has {' and '.join(CATEGORIES)}")
    question, options = parted(row["text"].removesuffix(_ASK), r"\(([A-H])\)")
    item_id = str(row["question_id"])
    option_of(options, row["label"], item_id)
    return Item(
        item_id, question, options, (row["label"],), row["label"], "choice", image_fields(row, ("image",)),
        {"category": (row["category"],)}, row,
    )  # fmt: skip


BENCHMARK = Benchmark(
    name="vstar",
    subsets={
        "all": lambda item: True,
        "direct_attributes": lambda item: item.groups["category"] == ("direct_attributes",),
        "relative_position": lambda item: item.groups["category"] == ("relative_position",),
    },
    hub={"all": Hub("lmms-lab-encoder/vstar-bench", (None,), "test", ("image",))},
    rows=rows,
    item=item,
    prompts={"official": lambda item: f"{steps_prompt(item)}\n{_ASK}", "steps": steps_prompt},
    rules={"official": read},
)
