"""DynaMath: 501 seed questions, each in ten variants (DynaMath/DynaMath @ 598c3c3, DynaMath/DynaMath_Sample; MIT).

    {"id": "1", "question": "What is the period of this function? ...", "decoded_image": ..., "ground_truth": "2.0944",
     "answer_type": "float", "subject": "analytic geometry", "knowledge_level": "high school"}

On the Hub a variant is a split, `sample_variant1` to `sample_variant10`. A folder has a file of rows with that name for
each variant, in the Hub's form or in that of the repository's generator (`dataset.json`, with `answer` and `level`).

Rule of the authors' evaluation in VLMEvalKit (vlmeval/dataset/dynamath.py @ e8e78f0): the `short answer` of a JSON
object is compared, floats within 0.001. Without one, a chat model shortens the response; here our rules read it.
`average` is the accuracy over all variants, `worst_case` the share of seed questions that are right in every variant.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Set
from pathlib import Path

from vlprm.benchmarks.benchmark import (
    Benchmark,
    Hub,
    Item,
    NoItems,
    Output,
    RawItem,
    Reading,
    everything,
    image_fields,
    read_rows,
    steps_prompt,
)
from vlprm.benchmarks.reading import parted, read
from vlprm.errors import UserError
from vlprm.schema import AnswerType

VARIANTS = 10
_ANSWER_TYPES: dict[str, AnswerType] = {"float": "float", "multiple choice": "choice", "text": "text"}
_ASK = {
    "multiple choice": "Provide the corresponing choice option in the 'short answer' key, "
    "such as 'A', 'B', 'C', or 'D'.",
    "float": "Format the answer as a three-digit floating-point number and provide it in the 'short answer' key.",
    "text": "Float numbers in the answer should be formatted as three-digit floating-point numbers.",
}
_GUIDE = """
## Answer Instruction Please provide an answer to the question outlined above. Your response should adhere \
to the following JSON format, which includes two keys: 'solution' and 'short answer'. The 'solution' key can contain \
detailed steps needed to solve the question, and the 'short answer' key should provide a concise response. {}

Example of expected JSON response format:

{{
    "solution": "[Detailed step-by-step explanation]",
    "short answer": "[Concise Answer]"
}}"""


def rows(folder: Path, subset: str) -> list[RawItem]:
    """The rows of all variants in a folder."""
    files = [
        (f"sample_variant{n}", folder / f"sample_variant{n}.{suffix}")
        for n in range(1, VARIANTS + 1)
        for suffix in ("jsonl", "json")
    ]
    found: list[RawItem] = [
        {"_split": split, **row} for split, path in files if path.is_file() for row in read_rows(path)
    ]
    if not found:
        raise NoItems(
            f"{folder} has no items of dynamath; it must have sample_variant1.jsonl, sample_variant2.jsonl, ..."
        )
    return found


def item(row: RawItem) -> Item:
    """The item of a row."""
    kind, seed, variant = row["answer_type"], str(row["id"]), row["_split"].removeprefix("sample_variant")
    if kind not in _ANSWER_TYPES:
        raise UserError(f"{seed}: the answer type {kind!r} is none of {', '.join(_ANSWER_TYPES)}; correct the row")
    answer = str(row["ground_truth"] if "ground_truth" in row else row["answer"])
    choices = parted(row["question"], r"(?:Choices:\s*)?\(([A-H])\)") if kind == "multiple choice" else (None, ())
    return Item(
        id=f"{seed}/{variant}",
        question=choices[0] or row["question"],
        options=choices[1],
        gold=(answer,),
        answer=answer,
        answer_type=_ANSWER_TYPES[kind],
        images=image_fields(row, ("decoded_image",)) or image_fields(row, ("image",)),
        groups={
            "subject": (row["subject"],),
            "level": (row["knowledge_level"] if "knowledge_level" in row else row["level"],),
            "variant": (variant,),
        },
        row=row,
    )


def official_prompt(item: Item) -> str:
    """The authors' prompt."""
    return f"## Question\n {item.row['question']}{_GUIDE.format(_ASK[item.row['answer_type']])}"


def official(item: Item, output: Output) -> Reading:
    """The authors' rule for responses in their JSON form, or for short ones; our reader for others."""
    said = short_answer(output.text)
    answer = None if said is None else parsed(item.answer_type, said)
    if answer is None:
        answer = parsed(item.answer_type, output.text.strip()) if item.answer_type != "text" else None
    if answer is None:
        answer = read(item, output).answer
    return Reading(answer, answer is not None and _equal(item, answer))


def short_answer(response: str) -> str | None:
    """The `short answer` of the JSON object in a response; None if there is none."""
    try:
        whole = json.loads(response[response.find("{") : response.rfind("}") + 1].replace("\\", ""), strict=False)
    except (ValueError, RecursionError):
        return None
    found = whole.get("short answer") if isinstance(whole, dict) else None
    return found if isinstance(found, str) else None


def parsed(kind: AnswerType, said: str) -> str | None:
    """A short answer in the form that is compared: a number, a letter or the text itself; None if it has none."""
    if kind == "choice":
        letters = [letter for letter in "ABCDE" if letter in said.upper()]
        return said.upper() if len(said) == 1 else letters[0] if len(letters) == 1 else None
    if kind != "float":
        return said or None
    number, pi, _ = said.partition(" ")[0].partition("π")
    try:
        return str(float(number) * math.pi) if pi else str(float(number))
    except ValueError:
        return None


def _equal(item: Item, answer: str) -> bool:
    if item.answer_type == "float":
        return abs(float(answer) - float(item.answer)) <= 0.001
    return answer == item.answer if item.answer_type == "choice" else answer.lower() in item.answer.lower()


def scores(items: Mapping[str, Item], right: Set[str]) -> dict[str, float]:
    """`average`, `worst_case`, and the number of seed questions."""
    variants: dict[str, list[bool]] = {}
    for item_id in items:
        variants.setdefault(item_id.partition("/")[0], []).append(item_id in right)
    return {
        "average": sum(map(sum, variants.values())) / len(items),
        "worst_case": sum(map(all, variants.values())) / len(variants),
        "seeds": len(variants),
    }


_SPLITS = "+".join(f"sample_variant{n}" for n in range(1, VARIANTS + 1))
BENCHMARK = Benchmark(
    name="dynamath",
    subsets={"all": everything},
    hub={"all": Hub("DynaMath/DynaMath_Sample", (None,), _SPLITS, ("decoded_image",))},
    rows=rows,
    item=item,
    prompts={"official": official_prompt, "steps": steps_prompt},
    rules={"official": official, "read": read},
    scores=scores,
)
