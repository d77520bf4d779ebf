"""We-Math testmini: 525 problems of two or three steps, each with its one-step parts (We-Math/We-Math @ a57a0e8;
CC BY-NC 4.0).

    {"ID": "2steps_1", "key": "2steps_multi", "question": "...", "option": "A. 300;B. 400; ...", "answer": "C",
     "image_path": "2steps/image/1-multi.png", "knowledge concept": "..."}

1,740 rows: `key` says which part of the problem `ID` a row is, `multi` being the whole problem. An item's id is both,
`2steps_1/2steps_multi`. The official rule (evaluation/four_dimensional_metrics.py) takes the first letter after the
last "Answer"; `read` is for responses in another form.

Scores, strict and loose: a problem whose whole is wrong is insufficient knowledge (IK) if a part is wrong, too, and
inadequate generalization (IG) if no part is. One whose whole is right is complete mastery (CM) if all parts are right
(strict) or at least one is (loose), else rote memorization (RM). Score = 1 - (IG / 2 + RM + IK) / problems.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Set
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
    plain_key,
    steps_prompt,
)
from vlprm.benchmarks.reading import parted, read
from vlprm.errors import UserError

_PROMPT = (
    "Now, we require you to solve a multiple-choice math question. Please briefly describe your thought process and "
    "provide the final answer(option).\nQuestion: {}\nOption: {}\nRegarding the format, please answer following the "
    "template below, and be sure to include two <> symbols:\n"
    "<Thought process>: <<your thought process>> <Answer>: <<your option>>"
)


def rows(folder: Path, subset: str) -> list[RawItem]:
    """The rows of a folder."""
    return file_rows(folder, ("testmini.json",), "wemath")


def key(record: RawItem) -> str | None:
    """The id of an output's record: problem and part."""
    return f"{record['ID']}/{record['key']}" if {"ID", "key"} <= record.keys() else plain_key(record)


def item(row: RawItem) -> Item:
    """The item of a row."""
    steps, _, part = row["key"].partition("_")
    if steps not in ("2steps", "3steps") or part not in ("1", "2", "3", "multi"):
        raise UserError(f"{row['ID']} has the key {row['key']!r}; We-Math's are 2steps_1 to 3steps_multi")
    lead, options = parted(row["option"], r"(?:^|;\s*)([A-H])\. ?")
    question = row["question"] if options and not lead else f"{row['question']}\n{row['option']}"
    return Item(
        id=f"{row['ID']}/{row['key']}",
        question=question,
        options=options if not lead else (),
        gold=(row["answer"],),
        answer=row["answer"],
        answer_type="choice",
        images=image_fields(row, ("image_path",)),
        groups={
            "steps": (steps if part == "multi" else "1step",),
            "knowledge": (row["knowledge concept"],) if part != "multi" else (),
        },
        row=row,
    )


def official_prompt(item: Item) -> str:
    """The authors' prompt."""
    return _PROMPT.format(item.row["question"], item.row["option"])


def official(item: Item, output: Output) -> Reading:
    """The authors' rule."""
    tail = re.sub(r"[><:.]", "", output.text.split("Answer")[-1].strip()).strip()
    letter = tail[0] if tail and tail[0] in LETTERS[:8] else None
    return Reading(letter, letter in item.gold)


def scores(items: Mapping[str, Item], right: Set[str]) -> dict[str, float]:
    """The four shares and the score, strict and loose, over the problems whose parts are all among the items."""
    parts: dict[str, dict[str, bool]] = {}
    for item_id in items:
        problem, _, part = item_id.partition("/")
        parts.setdefault(problem, {})[part.partition("_")[2]] = item_id in right
    whole = [found for problem, found in parts.items() if len(found) == int(problem[0]) + 1]
    if not whole:
        return {}
    found: dict[str, float] = {"problems": len(whole)}
    conditions: dict[str, Callable[[Iterable[bool]], bool]] = {"strict": all, "loose": any}
    for name, mastered in conditions.items():
        kinds = [_kind(dict(one), mastered) for one in whole]
        share = {kind: kinds.count(kind) / len(whole) for kind in ("IK", "IG", "CM", "RM")}
        solved = share["CM"] + share["RM"]
        found[f"score_{name}"] = 1 - share["IG"] / 2 - share["RM"] - share["IK"]
        found |= {f"{kind}_{name}": share[kind] for kind in ("IK", "IG", "CM")}
        found[f"RM_{name}"] = share["RM"] / solved if solved else 0.0  # published as a share of the solved problems
    return found


def _kind(parts: dict[str, bool], mastered: Callable[[Iterable[bool]], bool]) -> str:
    whole = parts.pop("multi")
    if whole:
        return "CM" if mastered(parts.values()) else "RM"
    return "IG" if all(parts.values()) else "IK"


BENCHMARK = Benchmark(
    name="wemath",
    subsets={"all": everything, "testmini": everything},
    hub={"all": Hub("We-Math/We-Math", (None,), "testmini", ("image_path",))},
    rows=rows,
    item=item,
    prompts={"official": official_prompt, "steps": steps_prompt},
    rules={"official": official, "read": read},
    key=key,
    scores=scores,
)
