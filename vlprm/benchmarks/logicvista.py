"""LogicVista: 448 tests of reasoning in images (Yijia-Xiao/LogicVista @ e5795f1, lscpku/LogicVista; Apache-2.0).

    {"v1_1": {"imagename": "v1_1.png", "question": "Which choices in the image (A-D) belong ...?", "answer": "A, C",
     "skill": ["inductive"], "broad_capability": ["diagram"], "reasoning": "...", ...}}

The official scorer (eval/extract_accuracy.py) lets a chat model list the chosen letters; all of them must be right. An
output whose record stores this list as `extracted` is scored by it. Otherwise the letters that the concluding text
names are taken: alone, in brackets, or in a list such as "A, C". One row has no gold answer and is never right.
"""

from __future__ import annotations

import re
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
    steps_prompt,
)
from vlprm.benchmarks.reading import read

_LIST = r"[A-H1-9](?:(?:,\s*(?:and\s+)?|\s+and\s+|\s*&\s*)[A-H1-9])*"
_ANNOUNCED = re.compile(rf"(?i:answers?|choices?|options?|boxed)(?i:\s+(?:is|are))?[:\s*({{$]*({_LIST})(?![\w'])")
_ASK = "Please answer with the letter or letters of your choice."


def rows(folder: Path, subset: str) -> list[RawItem]:
    """The rows of a folder, each with the path of its image."""
    return [
        {"image": f"images/{row['imagename']}", **row} for row in file_rows(folder, ("dataset.json",), "logicvista")
    ]


def item(row: RawItem) -> Item:
    """The item of a row."""
    answer = row["answer"].strip()
    return Item(
        id=str(row["id"] if "id" in row else row["imagename"].partition(".")[0]),
        question=row["question"],
        options=(),
        gold=tuple(re.findall(r"\w", answer)),
        answer=answer,
        answer_type="choice" if re.fullmatch("[A-H]", answer) else "text",
        images=image_fields(row, ("image",)),
        groups={name: tuple(row[name]) for name in ("skill", "broad_capability") if name in row},
        row=row,
    )


def official(item: Item, output: Output) -> Reading:
    """The chosen letters, compared as a set."""
    stored = output.saved.get("extracted")
    said = letters(output.text) if stored is None else "".join(map(str, stored))
    if said is None:  # prose that names the letter in another way
        said = read(item, output).answer if item.answer_type == "choice" else None
    chosen = sorted(set(re.findall("[A-Z0-9]", (said or "").upper())))
    return Reading(", ".join(chosen) or None, bool(chosen) and chosen == sorted(item.gold))


def letters(response: str) -> str | None:
    """The letters or digits that a response consists of, or those after its last "answer is"; None without any."""
    response = response.strip().strip(".()$*")
    if re.fullmatch(_LIST, response):
        return re.sub("and|[^A-H1-9]", "", response)
    found = _ANNOUNCED.findall(response)
    return re.sub("and|[^A-H1-9]", "", found[-1]) if found else None


BENCHMARK = Benchmark(
    name="logicvista",
    subsets={"all": everything},
    hub={"all": Hub("lscpku/LogicVista", (None,), "test", ("image",))},
    rows=rows,
    item=item,
    prompts={"official": lambda item: f"{item.question}\n{_ASK}", "steps": steps_prompt},
    rules={"official": official},
)
