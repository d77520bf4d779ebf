"""Readers of step labels with images. Each turns one record into one row, or raises RecordError."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from vlprm.data.dataset import COLUMNS
from vlprm.data.importing import (
    DatasetRow,
    ImageFolder,
    Record,
    chain,
    label_without_counts,
    made_row,
    refuse_blank_question,
    required_field,
    soft_value,
    step_texts,
    without_marks,
)
from vlprm.errors import RecordError
from vlprm.schema import StepLabel, TreeNode
from vlprm.steps import parse_step

PRM_TAG = "<prm>"
SIGNS = {"+": 1.0, "-": 0.0}
_FIRST_TURN = re.compile(r"\s*### Question:\n(.*?)\n\n### Solution Process:\n(.*)", re.DOTALL)

# A question may itself contain a line that starts with "Process:". The last match counts; with numbered steps, the
# last one before step 1.
_MM_PRM_OPENING = re.compile(r"\s*Question: ?(.*)\nProcess: ?(Step 1:.*)", re.DOTALL)
_MM_PRM_OPENING_UNNUMBERED = re.compile(r"\s*Question: ?(.*)\nProcess: ?(.*)", re.DOTALL)


def counted(record: Record, images: ImageFolder) -> DatasetRow:
    """Records with `steps_with_score`: VL-PRM's rollouts and VisualPRM400K v1.1, with their counts."""
    steps = required_field(record, "steps_with_score", list)
    nodes = chain(step_texts([_get(s, "step") for s in steps]), [_counts(s, record) for s in steps])
    shown = _shown(record, images)
    question = without_marks(_question(record), len(shown))
    return made_row("mc", question, shown, _answer(record), nodes, source=record.get("uid"))


def vl_prm300k(record: Record, images: ImageFolder) -> DatasetRow:
    """VL-PRM300K (arXiv 2509.23250) as released: `conversations` has + or - for the first steps; later steps have no
    label. `first_incorrect_step` names the section of the first error, which gives its kind."""
    if "conversations" not in record:
        return counted(record, images)
    steps = required_field(record, "steps_with_score", list)
    signs = [value for speaker, value in _turns(record) if speaker == "gpt"]
    if len(signs) > len(steps):
        raise RecordError("label_count")
    counts = [_counts(s, record) for s in steps]
    targets = [_sign(sign) for sign in signs] + [None] * (len(steps) - len(signs))
    section = str((record.get("first_incorrect_step") or [""])[0]).lower()
    kind = "perception" if "visual" in section else "reasoning" if "reason" in section else None
    first = targets.index(0.0) if 0.0 in targets else None
    labels = [
        StepLabel(c.mc_correct, c.mc_valid, c.mc_total, {}, target, kind if n == first else None, "vl-prm300k")  # type: ignore[arg-type]
        for n, (c, target) in enumerate(zip(counts, targets, strict=True))
    ]
    nodes = chain(step_texts([_get(s, "step") for s in steps]), labels)
    extra = {k: record[k] for k in ("question_type", "source", "consensus_filtering_algo_label") if k in record}
    shown = _shown(record, images)
    return made_row("vl-prm300k", without_marks(_question(record), len(shown)), shown, _answer(record), nodes, **extra)


def visual_prm400k(record: Record, images: ImageFolder) -> DatasetRow:
    """VisualPRM400K (arXiv 2503.10291): with counts, or as a chat of steps (human) and signs (gpt) whose first turn
    starts with the question."""
    if "steps_with_score" in record:
        return counted(record, images)
    turns = [(speaker, value) for speaker, value in _turns(record) if speaker != "system"]
    if [speaker for speaker, _ in turns] != ["human", "gpt"] * (len(turns) // 2):
        raise RecordError("turns")
    first = _FIRST_TURN.fullmatch(turns[0][1]) if turns else None
    if first is None:
        raise RecordError("no_question")
    steps = [first[2], *(value for _, value in turns[2::2])]
    labels = [label_without_counts("visual-prm400k", _sign(value)) for _, value in turns[1::2]]
    shown = _shown(record, images)
    question = without_marks(first[1], len(shown))
    return made_row("visual-prm400k", question, shown, record.get("answer"), chain(step_texts(steps), labels))


def mm_prm(record: Record, images: ImageFolder) -> DatasetRow:
    """MM-PRM (arXiv 2505.13427): a tree with `mc_value` and `children`, or a training row with a tag after each step
    and a list of soft values as the answer."""
    if "conversations" in record:
        return _tagged(record, images)
    nodes, waiting = [], [(child, -1) for child in required_field(record, "children", list)]
    for child, parent in waiting:  # grows during iteration: parents come before their children
        text = _get(child, "partial_solution") or _get(child, "text")
        label = label_without_counts("mm-prm", soft_value(_get(child, "mc_value")))
        nodes.append(TreeNode(parse_step(step_texts([text])[0]), parent, label))
        waiting += [(grandchild, len(nodes) - 1) for grandchild in child.get("children") or []]
    shown = _shown(record, images)
    return made_row(
        "mm-prm",
        without_marks(required_field(record, "question", str), len(shown)),
        shown,
        record.get("answer"),
        nodes,
        root_value=record.get("mc_value"),
    )


def _tagged(record: Record, images: ImageFolder) -> DatasetRow:
    """An MM-PRM training row. Its text is `Question: ...`, then `Process: ...`."""
    turns = _turns(record)
    if [speaker for speaker, _ in turns] != ["human", "gpt"]:
        raise RecordError("turns")
    (_, text), (_, values) = turns
    if not isinstance(text, str):
        raise RecordError("value_type")
    if not isinstance(values, list):
        raise RecordError("label_list")
    first, *steps = text.split(PRM_TAG)
    if not steps:
        raise RecordError("no_steps")
    if steps.pop().strip():  # a step without a tag
        raise RecordError("label_count")
    opening = _MM_PRM_OPENING.fullmatch(first) or _MM_PRM_OPENING_UNNUMBERED.fullmatch(first)
    if opening is None:
        raise RecordError("no_question")
    nodes = chain(step_texts([opening[2], *steps]), _tagged_labels(record, values))
    shown = _shown(record, images)
    return made_row("mm-prm", without_marks(opening[1], len(shown)), shown, None, nodes)


def _tagged_labels(record: Record, values: list[Any]) -> list[StepLabel]:
    """The values of an MM-PRM training row; BetaPRM's rows (arXiv 2605.15529) add the counts of rollouts."""
    counts = record.get("prm_counts")
    if counts is None:
        return [label_without_counts("mm-prm", soft_value(value)) for value in values]
    right, rollouts = _get(counts, "k"), _get(counts, "n")
    pairs = list(zip(right, rollouts, strict=True))
    if not all(type(k) is type(n) is int and 0 <= k <= n > 0 for k, n in pairs):
        raise RecordError("count_value", "its prm_counts are not counts; correct them")
    return [StepLabel(k, n, n, {}, k / n, None, "mc") for k, n in pairs]


def visual_process_bench(record: Record, images: ImageFolder) -> DatasetRow:
    """VisualProcessBench (arXiv 2503.10291): human labels 1, -1 and 0. A neutral step (0) gets no target and the rule
    `human neutral`."""
    response = required_field(record, "response", dict)
    marks = response.get("process_correctness")
    if not isinstance(marks, list) or not set(marks) <= {1, 0, -1}:
        raise RecordError("label_value")
    labels = [
        label_without_counts("human neutral" if m == 0 else "human", {1: 1.0, -1: 0.0, 0: None}[m]) for m in marks
    ]
    nodes = chain(step_texts(response.get("steps")), labels)
    extra = {k: record[k] for k in ("policy_model", "data_source") if k in record}
    shown = _shown(record, images)
    question = without_marks(required_field(record, "question", str), len(shown))
    return made_row("human", question, shown, record.get("answer"), nodes, **extra)


def vlprm(record: Record, images: ImageFolder) -> DatasetRow:
    """A row of our own dataset, without added columns."""
    if missing := set(COLUMNS) - set(record):
        raise RecordError(f"no_{min(missing)}")
    refuse_blank_question(required_field(record, "prompt", str))
    shown = [{"bytes": data, "path": None} for data in images.load(record["images"])]
    return {column: record[column] for column in COLUMNS} | {"images": shown}


def _counts(step: Any, record: Record) -> StepLabel:
    correct, total = _get(step, "num_mc_correct"), _get(step, "num_mc_total") or record.get("num_mc_sequences")
    if not (type(correct) is type(total) is int and 0 <= correct <= total > 0):  # a bool is not a count
        raise RecordError("count_value")
    return StepLabel(correct, total, total, {}, correct / total, None, "mc")


def _question(record: Record) -> str:
    return required_field(record, "question_orig" if record.get("question_orig") else "question", str)


def _shown(record: Record, images: ImageFolder) -> tuple[bytes, ...]:
    """The images of a record; each of these formats has one of the fields."""
    return images.load(record.get("image") or record.get("images") or record.get("image_path"))


def _answer(record: Record) -> Any:
    return record.get("rollout_ground_truth_answer", record.get("answer"))


def _turns(record: Record) -> Sequence[tuple[str, Any]]:
    """(speaker, value) of each turn; the speaker is system, human or gpt. Accepts from/value and role/content."""
    names = {"user": "human", "assistant": "gpt"}
    turns = []
    for turn in required_field(record, "conversations", list):
        speaker = _get(turn, "from") or _get(turn, "role")
        value = turn.get("value", turn.get("content"))
        turns.append((names.get(speaker, speaker), value))
    return turns


def _sign(value: Any) -> float:
    if not isinstance(value, str) or value.strip() not in SIGNS:
        raise RecordError("label_value")
    return SIGNS[value.strip()]


def _get(value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise RecordError("not_an_object")
    return value.get(name)
