"""Readers of rows with which verifiers of other groups were trained. Each turns one record into one row, or raises
RecordError.

The layouts are those of public scripts that write or read the rows. For DualMath and ViLReward only the names of the
columns are public in text; a row that does not fit is dropped and counted, like any other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from data_synth.formats.config import Format
from vlprm.data.importing import (
    DatasetRow,
    ImageFolder,
    Record,
    chain,
    label_without_counts,
    made_row,
    required_field,
    soft_value,
    step_texts,
    without_marks,
)
from vlprm.errors import RecordError
from vlprm.schema import ErrorKind, StepLabel

URSA_MARK, URSA_SIGNS = " и", {" +": 1.0, " -": 0.0}
_URSA_QUESTION = re.compile(r"(?:.*?correctness of each step\.\s*Question:)?(.*?)\n?(?=Step 1\b)(.*)", re.DOTALL)
_STEPS = re.compile(r"(?m)^(?=Step \d+\s*[:.])")
_NUMBERED = re.compile(r"(?m)^\d+\. ")
_SECTION = re.compile(r"\[(Question|Reference Answer|Candidate Solution)\]\n(.*?)(?=\n\[|\Z)", re.DOTALL)
_EVPV = re.compile(r"Question: (.*?)\n\nImage Describe: (?:.*?)\n\nSolution Steps:\n(.*)", re.DOTALL)
CURRENT_STEP, ASKED = "[Current Step]\n", "\nIs the current step correct"


def dual_math(record: Record, images: ImageFolder) -> DatasetRow:
    """URSA's DualMath-1.1M (arXiv 2501.04686): `instruction` has a mark after each step, `output` the same text with +
    or - instead of the marks."""
    marked, signed = required_field(record, "instruction", str), required_field(record, "output", str)
    parts = marked.split(URSA_MARK)
    signed = signed[max(0, signed.find(parts[0])) :]
    targets = []
    for part in parts[:-1]:
        sign = signed[len(part) : len(part) + 2]
        if not signed.startswith(part) or sign not in URSA_SIGNS:
            raise RecordError(
                "label_text", "its output is not its instruction with + or - for each mark; check the row"
            )
        targets.append(URSA_SIGNS[sign])
        signed = signed[len(part) + len(sign) :]
    opening = _URSA_QUESTION.fullmatch(parts[0])
    if opening is None:
        raise RecordError("no_question")
    shown = images.load(record.get("image_url"))
    labels = [label_without_counts("dual-math", target) for target in targets]
    nodes = chain(step_texts([opening[2], *(part.strip("\n") for part in parts[1:-1])]), labels)
    return made_row("dual-math", without_marks(opening[1].strip(), len(shown)), shown, None, nodes)


def vil_reward(record: Record, images: ImageFolder) -> DatasetRow:
    """ViLReward-73K (arXiv 2503.20271): the first paragraphs of a solution (`process`) and the tree search's `value` of
    the last of them; the earlier ones have no label."""
    steps = step_texts([part for part in required_field(record, "process", str).split("\n\n") if part.strip()])
    labels = [label_without_counts("vil-reward", None)] * (len(steps) - 1)
    nodes = chain(steps, [*labels, label_without_counts("vil-reward", soft_value(record.get("value")))])
    shown = images.load(record.get("image"))
    question = without_marks(required_field(record, "question", str), len(shown))
    return made_row("vil-reward", question, shown, record.get("answer"), nodes)


def pro_judge(record: Record, images: ImageFolder) -> DatasetRow:
    """ProJudge (arXiv 2503.06553): `process_evaluation` lists the text of each step, 1 or 0, the type of its error and
    an explanation; a visual error is one of perception."""
    said = required_field(record, "process_evaluation", list)
    if not all(isinstance(item, list) and len(item) >= 3 and str(item[1]) in ("0", "1") for item in said):
        raise RecordError("label_value", "its process_evaluation has a step without 0 or 1; correct it")
    labels = [_judged(str(item[1]) == "1", str(item[2] or "")) for item in said]
    paths = record.get("image_paths") or {}
    shown = images.load([path for path in (paths.values() if isinstance(paths, dict) else paths) if path])
    question = without_marks(required_field(record, "question", str), len(shown))
    extra = {k: record[k] for k in ("subject", "data_type") if k in record}
    nodes = chain(step_texts([item[0] for item in said]), labels)
    return made_row("projudge", question, shown, record.get("answer"), nodes, **extra)


def _judged(correct: bool, error: str) -> StepLabel:
    kind: ErrorKind = "perception" if "visual" in error.lower() else "reasoning"
    return label_without_counts("projudge", float(correct), None if correct else kind)


def dream_prm(record: Record, images: ImageFolder) -> DatasetRow:
    """DreamPRM (arXiv 2505.20241): one row per step. `add` has the solution up to step `sid`, which `score` of `times`
    rollouts finish rightly; the earlier steps have no label."""
    steps = [part.rstrip("\n") for part in _STEPS.split(required_field(record, "add", str)) if part.strip()]
    if len(step_texts(steps)) != record.get("sid", len(steps)):
        raise RecordError("label_count", f"it has {len(steps)} steps before its sid; number them `Step 1:` and so on")
    correct, total = record.get("score"), record.get("times")
    if not (type(correct) is type(total) is int and 0 <= correct <= total > 0):
        raise RecordError("count_value", "its score and times are not counts; correct them")
    labels = [StepLabel(rule="dream-prm")] * (len(steps) - 1)
    last = StepLabel(correct, total, total, {}, correct / total, None, "dream-prm")
    shown = images.load(record.get("image_path"))
    question = without_marks(required_field(record, "input", str), len(shown))
    nodes = chain(steps, [*labels, last])
    return made_row("dream-prm", question, shown, record.get("ground_truth"), nodes, source=record.get("dataset"))


def vrprm(record: Record, images: ImageFolder) -> DatasetRow:
    """VRPRM's dialogues (arXiv 2508.03556): a thought about the whole solution, then a turn per step, answered by 1 or
    0. An answer with `loss: false` is not a label, because teacher and rollouts were not sure."""
    turns = required_field(record, "messages", list)
    pairs = [(a, b) for a, b in pairwise(turns) if CURRENT_STEP in str(a.get("content"))]
    told = next((str(t.get("content")) for t in turns if t.get("role") == "user"), "")
    sections = dict(_SECTION.findall(told))
    if "Question" not in sections:
        raise RecordError("no_question")
    steps, labels = [], []
    for asked, answer in pairs:
        steps.append(str(asked["content"]).rpartition(CURRENT_STEP)[2].partition(ASKED)[0].strip())
        if answer.get("content") not in ("0", "1"):
            raise RecordError("label_value", "one of its step turns is not answered by 0 or 1; correct it")
        rule, target = ("vrprm masked", None) if answer.get("loss") is False else ("vrprm", float(answer["content"]))
        labels.append(label_without_counts(rule, target))
    shown = images.load(record.get("images"))
    question = without_marks(sections["Question"].strip(), len(shown))
    return made_row("vrprm", question, shown, sections.get("Reference Answer"), chain(step_texts(steps), labels))


def evpv(record: Record, images: ImageFolder) -> DatasetRow:
    """EVPV's rows for ms-swift (arXiv 2603.16253): a question with numbered steps, answered by a list of steps with a
    `score` of 1 or -1 and an error `category`. Its description of the image is left out."""
    turns = {turn.get("role"): turn.get("content") for turn in required_field(record, "messages", list)}
    asked = _EVPV.fullmatch(str(turns.get("user")))
    if asked is None:
        raise RecordError("no_question")
    said = json.loads(str(turns.get("assistant")))
    steps = [part.strip() for part in _NUMBERED.split(asked[2]) if part.strip()]
    if not all(isinstance(item, dict) and item.get("score") in (1, -1) for item in said):
        raise RecordError("label_value", "its answer has a step without a score of 1 or -1; correct it")
    labels = [_scored(item) for item in said]
    shown = images.load(record.get("images"))
    return made_row("evpv", without_marks(asked[1], len(shown)), shown, None, chain(step_texts(steps), labels))


def _scored(item: dict[str, Any]) -> StepLabel:
    category = str(item.get("category") or "").lower()
    visual = category.startswith("1") or "visual" in category  # the first of its five categories
    kind: ErrorKind = "perception" if visual else "reasoning"
    return label_without_counts("evpv", float(item["score"] == 1), None if item["score"] == 1 else kind)


READERS: dict[Format, Callable[[Record, ImageFolder], DatasetRow]] = {
    "dual_math": dual_math,
    "vil_reward": vil_reward,
    "pro_judge": pro_judge,
    "dream_prm": dream_prm,
    "vrprm": vrprm,
    "evpv": evpv,
}
