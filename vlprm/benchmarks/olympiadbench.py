"""OlympiadBench: the competition problems with images and a final answer (OpenBMB/OlympiadBench @ ba5b26a,
Hothan/OlympiadBench; MIT).

    {"id": 2231, "subfield": "Geometry", "context": null, "question": "Turbo ... <image_1>", "image_1": ...,
     "final_answer": ["$\\frac{1}{2}$"], "is_multiple_answer": false, "unit": null, "answer_type": "Numerical",
     "error": null}

A part of the benchmark is a file, and a config on the Hub, such as `OE_MM_maths_en_COMP`: OE have a final answer, TP
are proofs, which only people score; MM have images. Here are the OE_MM parts, with subsets by subject and language.

Rule, from inference/judge.py and inference/code/math_judger.py: the text after the last "So the final answer is" (or
all of it), its boxes, split at commas; each part must match one of the gold answer's, whatever the order: as text, as a
number within the row's `error` (also as a percentage), as an interval, an expression or an equation. The official code
evaluates LaTeX with sympy without a limit; here vlprm/answers compares expressions, in a child process with a limit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from vlprm.answers import CANONICAL, is_correct
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
from vlprm.benchmarks.mathvision_latex import latex_value
from vlprm.errors import UserError

PARTS = (
    "OE_MM_maths_en_COMP",
    "OE_MM_maths_zh_CEE",
    "OE_MM_maths_zh_COMP",
    "OE_MM_physics_en_COMP",
    "OE_MM_physics_zh_CEE",
)
IMAGES = tuple(f"image_{n}" for n in range(1, 10))
_ENDS = {"en": "So the final answer is (.*)", "zh": "所以最终答案是(.*)"}
_SIGNS = {
    "\\left": "", "\\right": "", "\N{RATIO}": ":", "\N{FULLWIDTH COMMA}": ",", "$": "", "\\approx": "=", "\\simeq": "=",
    "\\sim": "=",
    "^\\prime": "'", "^{\\prime}": "'", "^\\circ": "", "%": "",
}  # fmt: skip
_TYPES = {
    "Numerical": "a numerical value", "Expression": "an expression", "Equation": "an equation",
    "Interval": "an interval", "Tuple": "a tuple",
}  # fmt: skip


def rows(folder: Path, subset: str) -> list[RawItem]:
    """The rows of the parts in a folder, or in its `data`."""
    files = [(part, base / f"{part}.json") for part in PARTS for base in (folder, folder / "data")]
    found: list[RawItem] = [
        {"_category": part, **row} for part, path in files if path.is_file() for row in read_rows(path)
    ]
    if not found:
        raise NoItems(f"{folder} has no items of olympiadbench; it must have one of {', '.join(PARTS)} as .json")
    return found


def item(row: RawItem) -> Item:
    """The item of a row."""
    part, final = row["_category"], row["final_answer"]
    if part not in PARTS:
        raise UserError(f"{part!r} is not a part of OlympiadBench with images and answers, as {', '.join(PARTS)} are")
    if not final:
        raise UserError(f"{part}/{row['id']} has no final_answer; leave proofs out")
    _, _, subject, language, source = part.split("_")
    answer = str(final[0])
    return Item(
        id=f"{part}/{row['id']}",
        question="\n".join(filter(None, (row.get("context"), row["question"]))),
        options=(),
        gold=(answer,),
        answer=answer,
        answer_type="expression",
        images=image_fields(row, IMAGES),
        groups={"subject": (subject,), "language": (language,), "source": (source,), "subfield": (row["subfield"],)},
        row=row,
    )


def official_prompt(item: Item) -> str:
    """The authors' prompt in English, also for the Chinese problems."""
    row, subject = item.row, {"maths": "Math", "physics": "Physics"}[item.groups["subject"][0]]
    kind = _TYPES.get(str(row["answer_type"]).split(",")[0], "a value")
    asked, boxed, note = f"The answer of the problem should be {kind}. ", "\\boxed{answer}", ""
    if row["is_multiple_answer"]:
        asked = f"The problem has multiple answers, each of them should be {kind}. "
        boxed = "\\boxed{multiple answers connected with commas}"
    if row.get("unit"):
        boxed, note = f"{boxed}(unit)", ", note that the unit of the answer should not be included in \\boxed{}"
    return (
        f"The following is an open-ended problem from an International {subject} competition. {asked}Please calculate "
        "the answer according to the given requirements and the information provided. Please use LaTeX format to "
        "represent the variables and formulas used in the solution process and results. Please end your solution with "
        f'"So the final answer is {boxed}." and give the result explicitly{note}.\n{item.question}'
    )


def official(item: Item, output: Output) -> Reading:
    """The authors' rule."""
    found = re.findall(_ENDS[item.groups["language"][0]], output.text)
    said = cleaned(boxes(found[-1].strip() if found else output.text))
    if not said:
        return Reading(None)
    return Reading(said, same(said, cleaned(boxes(item.gold[0])), errors(item.row.get("error"))))


def errors(stated: object) -> list[float]:
    """The allowed differences of a row's answers, in their order."""
    texts = str(stated).split(",") if stated else [""]
    return [float(text) if text.strip() else 1e-8 for text in texts]


def boxes(text: str) -> str:
    """The contents of all boxes, joined by commas; without a box, what is between dollars in the last line, or all."""
    found = []
    for opened in re.finditer(r"\\boxed\{", text):
        depth = 1
        for end in range(opened.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if not depth:
                found.append(text[opened.end() : end])
                break
    last = (text.strip().splitlines() or [""])[-1]
    return ",".join(found or re.findall(r"\$(.*?)\$", last)) or text


def cleaned(text: str) -> str:
    """The answer without signs that make no difference."""
    text = text.split("\\in ")[1] if "\\in " in text else text
    for sign, other in _SIGNS.items():
        text = text.replace(sign, other)
    text = text.strip("\n$,.:;^_=+`!@#%&*~\N{FULLWIDTH COMMA}\N{IDEOGRAPHIC FULL STOP} ")
    return re.sub(r"\\(?:mathrm|mathbf)\{~?([^}]*)\}", r"\1", text)


def same(said: str, gold: str, allowed: Sequence[float]) -> bool:
    """Whether the answers match one to one."""
    if said == gold:
        return True
    ours, theirs = _answers(said), _answers(gold)
    if len(ours) != len(theirs):
        return False
    allowed = list(allowed) if len(allowed) == len(theirs) else [allowed[0]] * len(theirs)
    for right, error in zip(theirs, allowed, strict=True):
        match = next((one for one in ours if _equal(one, right, error)), None)
        if match is None:
            return False
        ours.remove(match)
    return True


def _answers(text: str) -> list[str]:
    """The parts of an answer at commas outside of brackets, both signs of a plus-minus being parts of their own."""
    text = re.sub("[\u4e00-\u9fff]+", "", text)
    depth, parts = 0, [""]
    for sign in text:
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    signed = [[p.replace("\\pm", s) for s in "+-"] if "\\pm" in p else [p] for p in parts if p.strip()]
    return [part.strip() for both in signed for part in both]


def _equal(said: str, gold: str, error: float) -> bool:
    if said == gold and said:
        return True
    value, right = _number(said), _number(gold)
    if value is not None and right is not None:
        return any(abs(scaled - value) <= error * 1.01 for scaled in (right / 100, right, right * 100))
    if _bracketed(said) and _bracketed(gold):
        ours, theirs = said[1:-1].split(","), gold[1:-1].split(",")
        ends = said[0] + said[-1] == gold[0] + gold[-1] and len(ours) == len(theirs)
        return ends and all(_same_expression(a.strip(), b.strip(), error) for a, b in zip(ours, theirs, strict=True))
    if "=" in said and "=" in gold:
        return _same_expression(said, gold, error)
    return _same_expression(said.split("=")[-1].strip(), gold.split("=")[-1].strip(), error)


def _bracketed(text: str) -> bool:
    return text.startswith(("(", "[")) and text.endswith((")", "]")) and "," in text


def _same_expression(said: str, gold: str, error: float) -> bool:
    value, right = _value(said), _value(gold)
    if value is not None and right is not None:
        return abs(value - right) <= error * 1.01
    answer, expected = (CANONICAL["expression"](text) for text in (said, gold))
    return None not in (answer, expected) and is_correct(answer, gold, "expression") is True


def _value(text: str) -> float | None:
    value = latex_value(text)
    try:
        return None if value is None else float(value)
    except OverflowError:
        return None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _having(group: str, name: str) -> Callable[[Item], bool]:
    return lambda item: name in item.groups[group]


BENCHMARK = Benchmark(
    name="olympiadbench",
    subsets={
        "all": everything,
        **{name: _having("subject", name) for name in ("maths", "physics")},
        **{name: _having("language", name) for name in ("en", "zh")},
    },
    hub={"all": Hub("Hothan/OlympiadBench", PARTS, "train", IMAGES)},
    rows=rows,
    item=item,
    prompts={"official": official_prompt, "steps": steps_prompt},
    rules={"official": official},
)
