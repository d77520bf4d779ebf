"""MM-K12: school problems with an image, the test set of MM-PRM (ModalMinds/MM-PRM @ b914fd6, Cierra0506/MM-K12).

    {"id": "17", "question": "As shown in the figure, ...", "answer": "\\sqrt{3}", "image_path": "images/17.png"}

The fields are those that MM-PRM's scripts read; the rows and their licence are on the Hub only. The scripts take
correctness from stored labels, and the rule that made them is not public: `official` takes a stored `label`, and reads
other responses with our rules.
"""

from __future__ import annotations

from pathlib import Path

from vlprm.benchmarks.benchmark import Benchmark, Hub, Item, RawItem, everything, file_rows, image_fields, steps_prompt
from vlprm.benchmarks.reading import judged, read


def rows(folder: Path, subset: str) -> list[RawItem]:
    """The rows of a folder."""
    return [
        {"_line": line, **row}
        for line, row in enumerate(file_rows(folder, ("test.json", "test.jsonl", "items.jsonl"), "mm_k12"))
    ]


def item(row: RawItem) -> Item:
    """The item of a row."""
    answer = str(row["answer"]).strip()
    return Item(
        id=str(row["id"] if "id" in row else row["_line"]),
        question=row["question"],
        options=(),
        gold=(answer,),
        answer=answer,
        answer_type="choice" if answer in tuple("ABCDEFGH") else "expression",
        images=image_fields(row, ("image",)) or image_fields(row, ("image_path",)),
        groups={"subject": (row["subject"],)} if row.get("subject") else {},
        row=row,
    )


BENCHMARK = Benchmark(
    name="mm_k12",
    subsets={"all": everything},
    hub={"all": Hub("Cierra0506/MM-K12", (None,), "test", ("image",))},
    rows=rows,
    item=item,
    prompts={"official": steps_prompt, "steps": steps_prompt},
    rules={"official": judged("label"), "read": read},
)
