r"""MathVision: 3,040 mathematics contest problems with an image (mathllm/MATH-V, MathLLMs/MathVision; MIT).

    {"id": "4", "question": "How many different digits can you find in this picture?\n<image1>", "options": [],
     "answer": "6", "solution": null, "level": 1, "subject": "counting", "image": "images/4.jpg"}

Rules, from evaluation/evaluate.py and evaluation/utils.py at a1f5cc3: `official` extracts the answer from the response
and compares it with the gold answer and the text of the gold option. `as_published` uses the verdict stored in the
file; of 48,640 published verdicts, the current official scorer changes one (Gemini-Pro, item 3013).
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
    option_of,
    steps_prompt,
)
from vlprm.benchmarks.mathvision_latex import Number, latex_value
from vlprm.errors import UserError
from vlprm.prompts import option_list

_INSTRUCTION = (
    "Please first solve the problem step by step, then put your final answer or a single letter (if it is a multiple "
    'choice question) in one "\\boxed{}". '
)
_FLAGS = ("the final answer is", "the answer is", "the correct answer is", "the answer should be")


def rows(folder: Path, subset: str) -> list[RawItem]:
    """The rows of a subset in a folder."""
    names = {"testmini": "testmini.jsonl", "images": "items.jsonl"}
    name = names.get(subset, "test.jsonl")
    return file_rows(folder, (name, f"data/{name}"), "mathvision")


def item(row: RawItem) -> Item:
    """The item of a row."""
    options = tuple(str(option) for option in row["options"])
    answer = str(row["answer"])
    gold = (answer, option_of(options, answer, row["id"])) if options else (answer,)
    subject, level = row["subject"], f"level{row['level']}"
    return Item(
        id=str(row["id"]),
        question=row["question"],
        options=options,
        gold=gold,
        answer=answer,
        answer_type="choice" if options else "expression",
        images=image_fields(row, ("decoded_image",)) or image_fields(row, ("image",)),
        groups={"subject": (subject,), "level": (level,), "subject_level": (f"{subject}_{level}",)},
        row=row,
    )


def official_prompt(item: Item) -> str:
    """The authors' prompt."""
    options = option_list(item.options) + "\n" if item.options else ""
    return f"{_INSTRUCTION}\n{item.question}\n{options}"


def official(item: Item, output: Output) -> Reading:
    """The authors' scorer."""
    answer = extract(output.text)
    return Reading(answer or None, any(is_equal(gold, answer) for gold in item.gold))


def as_published(item: Item, output: Output) -> Reading:
    """The verdict stored in the output. UserError if there is none."""
    verdict = output.saved.get("correct")
    if not isinstance(verdict, bool):
        raise UserError(f"the output of {output.id} stores no verdict `correct`; use --rule official")
    return Reading(extract(output.text) or None, verdict)


def extract(response: str) -> str:
    """The answer in a response, cleaned; empty if there is none."""
    answer = response.strip()
    for c in "ABCDE":
        if answer.endswith((f" {c}.", f" ({c}).")) or answer.startswith((f"{c}\n", f"({c})\n", f"({c}) {c}\n")):
            answer = c
    last = answer.split("is ")[-1].rstrip(".")
    answer = last if _is_float(last) else answer
    if "oxed{" not in answer:
        for flag in _FLAGS:
            for written in (flag, flag.replace("the", "The")):
                answer = _after(answer, written)
    elif answer.count("oxed{") > 1:
        answer = "\\boxed{" + answer.split("oxed{")[-1]
    answer = re.sub(r"\{([a-e])\}", r"\1", re.sub(r"\(([a-e])\)", r"\1", cleaned(answer)))
    return answer.rstrip(".").lstrip(":").strip()


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _after(text: str, flag: str) -> str:
    """The text after the last occurrence of a flag: its first line, up to the end of the sentence."""
    tail = text.split(flag)[-1].strip()
    return tail.split("\n")[0].split(". ")[0] if flag in text else tail


def cleaned(text: str) -> str:
    """The content of the box, without LaTeX markup that does not change the answer."""
    text = text.lower().replace("{}", "")
    opened, closed = text.find("oxed{"), text.rfind("}")
    if 0 <= opened < closed:
        text = text[opened + len("oxed{") : closed]
    closed, opened = text.find("}"), text.find("{")
    if closed != -1 and (opened == -1 or closed < opened):
        text = text[:closed]
    text = text.split("=")[-1].split("\\approx")[-1]
    for old, new in _REPLACED:
        text = text.replace(old, new)
    return _math_clean_up(text)


# The order matters: a later replacement may act on the result of an earlier one.
_REPLACED = (
    (" ", ""), ("\\,", ""), ("∞", "\\infty"), ("+\\infty", "\\infty"), ("\\\\", "\\"), ("\n", ""), ("\\text", ""),
    ("\\mbox", ""), ("bmatrix", "pmatrix"), ("\\left", ""), ("\\right", ""), ("^{\\circ}", ""), ("^\\circ", ""),
    ("{m}^3", ""), ("m^3", ""), ("{units}", ""), ("units", ""), ("{km}", ""), ("km", ""),
)  # fmt: skip
_MATH_REPLACED = (
    ("\n", ""), ("\\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\left", ""), ("\\right", ""),
    ("^{\\circ}", ""), ("^\\circ", ""), ("\\$", ""), ("$", ""),
)  # fmt: skip


def _math_clean_up(text: str) -> str:
    """The clean-up that is common to scorers of the MATH dataset."""
    for old, new in _MATH_REPLACED:
        text = text.replace(old, new)
    text = text.split("\\text{ ")[0].replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.")
    text = "0" + text if text.startswith(".") else text
    for sign in ("=", "\\approx"):
        text = text.split(sign)[-1] if text.count(sign) == 1 else text
    if "sqrt" in text:
        text = _braced_fractions(_braced_roots(text).replace(" ", ""))
    text = text.replace(" ", "")
    text = "\\frac{1}{2}" if text == "0.5" else text
    fraction = re.fullmatch(r"(0|-?[1-9]\d*)/(0|-?[1-9]\d*)", text, re.ASCII)
    return f"\\frac{{{fraction[1]}}}{{{fraction[2]}}}" if fraction else text


def _braced_roots(text: str) -> str:
    return re.sub(r"\\sqrt([^{])", r"\\sqrt{\1}", text, flags=re.DOTALL)


def _braced_fractions(text: str) -> str:
    """`\\frac12` with braces; the text unchanged if a fraction does not have two parts."""
    head, *tails = text.split("\\frac")
    for tail in tails:
        head += "\\frac"
        if tail.startswith("{"):
            head += tail
        elif len(tail) < 2:
            return text
        else:
            head += f"{{{tail[0]}}}" + (tail[1:] if tail[1] == "{" else f"{{{tail[1]}}}{tail[2:]}")
    return head


def is_equal(gold: str, answer: str) -> bool:
    """Whether they are equal as text, element by element as tuples, or as numbers rounded to two decimals."""
    gold, answer = gold.lower(), answer.lower()
    if not gold.replace(" ", "") or not answer.replace(" ", ""):
        return False
    if gold.strip() == answer.strip():
        return True
    gold, answer = _evaluated_tuple(gold), _evaluated_tuple(answer)
    if gold == answer:
        return True
    value = _rounded(gold)
    return value is not None and value == _rounded(answer)


def _rounded(text: str) -> Number | None:
    value = latex_value(text)
    return None if value is None else round(value, 2)


def _evaluated_tuple(text: str) -> str:
    """A tuple or list with its elements as numbers; the text unchanged if an element is not a number."""
    elements = text[1:-1].split(",")
    if (text[0], text[-1]) not in (("(", ")"), ("[", "]")) or len(elements) == 1:
        return text
    values = [e if "infty" in e or e in ("a", "-a") else _rounded(e) for e in elements]
    return text if None in values else f"{text[0]}{','.join(map(str, values))}{text[-1]}"


_COLUMNS = ("decoded_image",)
BENCHMARK = Benchmark(
    name="mathvision",
    subsets={"all": everything, "testmini": everything, "images": everything},
    hub={
        "all": Hub("MathLLMs/MathVision", (None,), "test", _COLUMNS),
        "testmini": Hub("MathLLMs/MathVision", (None,), "testmini", _COLUMNS),
    },
    rows=rows,
    item=item,
    prompts={"official": official_prompt, "steps": steps_prompt},
    rules={"official": official, "as_published": as_published},
)
