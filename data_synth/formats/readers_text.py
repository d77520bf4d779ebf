"""Readers of text-only step labels. Each turns one record into one row, or raises RecordError."""

from __future__ import annotations

import bisect
import re
from typing import Any

from vlprm.data.importing import (
    DatasetRow,
    ImageFolder,
    Leaf,
    Record,
    chain,
    label_without_counts,
    made_row,
    required_field,
    soft_value,
    step_texts,
)
from vlprm.errors import RecordError
from vlprm.schema import StepLabel, TreeNode
from vlprm.steps import parse_step

TAG = "ки"
_STEP_ONE = re.compile(r"Step 1:")
_SENTENCE_ENDS = (".", "?", "!", ")", '"', "$")
_ANSWER = re.compile(r"The answer is:\s*(.*?)\s*$")
RATINGS: dict[int | None, tuple[str, float | None]] = {
    1: ("prm800k", 1.0), -1: ("prm800k", 0.0), 0: ("prm800k neutral", None), None: ("prm800k unrated", None),
}  # fmt: skip


def math_shepherd(record: Record, _: ImageFolder) -> DatasetRow:
    """Math-Shepherd (arXiv 2312.08935): `label` is `input` with each tag replaced by + or -. The sign of the last step
    says whether the answer is right."""
    parts, signed = required_field(record, "input", str).split(TAG), required_field(record, "label", str)
    signs = []
    for part in parts[:-1]:
        if not signed.startswith(part) or signed[len(part) : len(part) + 1] not in ("+", "-"):
            raise RecordError("label_text")
        signs.append(signed[len(part)])
        signed = signed[len(part) + 1 :]
    if parts[-1].strip() or signed != parts[-1]:
        raise RecordError("label_count")
    opening = _opening(parts[0])
    steps = step_texts([parts[0][opening:], *parts[1:-1]])
    nodes = chain(steps, [label_without_counts("math-shepherd", float(sign == "+")) for sign in signs])
    said = _ANSWER.search(steps[-1])
    leaf: Leaf = (said[1] if said else None, signs[-1] == "+")
    return made_row(
        "math-shepherd", parts[0][:opening], (), None, nodes, {len(nodes) - 1: leaf}, source=record.get("task")
    )


def _opening(text: str) -> int:
    """Index at which the first step begins: the last `Step 1:` after a full sentence, else the last one. A question may
    itself number steps, and a step may mention step 1."""
    places = [found.start() for found in _STEP_ONE.finditer(text)]
    if not places:
        raise RecordError("no_first_step")
    after_sentences = [place for place in places if text[:place].rstrip().endswith(_SENTENCE_ENDS)]
    return max(after_sentences or places)


def prm800k(record: Record, _: ImageFolder) -> DatasetRow:
    """PRM800K (arXiv 2305.20050): the completions of a step are siblings; the solution continues from the chosen one,
    or from the human's."""
    question, label = required_field(record, "question", dict), required_field(record, "label", dict)
    nodes: list[TreeNode] = []
    parent: int | None = -1
    for step in required_field(label, "steps", list):
        options = step.get("completions") or []
        human = step.get("human_completion")
        if parent is None and (options or human):
            raise RecordError("no_chosen_completion")
        first, chosen = len(nodes), step.get("chosen_completion")
        for option in [*options, *([human] if human else [])]:
            rule, target = RATINGS[_rating(option)]
            nodes.append(TreeNode(parse_step(step_texts([option.get("text")])[0]), -1 if parent is None else parent,
                                  label_without_counts(rule, target)))  # fmt: skip
        if chosen is not None and not (isinstance(chosen, int) and 0 <= chosen < len(options)):
            raise RecordError("chosen_completion_value")
        parent = first + chosen if chosen is not None else first + len(options) if human else None
    gold, finish = question.get("ground_truth_answer"), label.get("finish_reason")
    solved: dict[int, tuple[str | None, bool | None]] = {}
    if finish == "solution" and parent is not None:
        solved[parent] = None if gold is None else str(gold), True
    return made_row("prm800k", required_field(question, "problem", str), (), gold, nodes, solved, finish=finish)


def _rating(option: Record) -> int | None:
    if option.get("rating") not in RATINGS:
        raise RecordError("rating_value")
    return option.get("rating")


def omega_prm(record: Record, _: ImageFolder) -> DatasetRow:
    """OmegaPRM trees as written by openr, nested or flat. The root holds the question, not a step."""
    question, found = required_field(record, "question", str), record.get("reasoning_steps")
    if isinstance(found, dict):
        nodes = _nested(found)
    elif isinstance(found, list):
        nodes = _flat(question, found)
    else:
        raise RecordError("no_reasoning_steps")
    root = found.get("mc_value") if isinstance(found, dict) else None
    return made_row("omega-prm", question, (), record.get("final_answer"), nodes, root_value=root)


def _nested(root: Record) -> list[TreeNode]:
    nodes: list[TreeNode] = []
    waiting: list[tuple[Any, int]] = [(child, -1) for child in root.get("children", [])]
    for child, parent in waiting:  # grows during iteration: parents come before their children
        nodes.append(_node(step_texts([child.get("text")])[0], parent, child))
        waiting += [(grandchild, len(nodes) - 1) for grandchild in child.get("children", [])]
    return nodes


def _flat(question: str, states: list[Record]) -> list[TreeNode]:
    """The parent of a state is the longest earlier state that is a prefix of it."""
    nodes: list[TreeNode] = []
    places: dict[str, int] = {}
    lengths: list[int] = []
    for state in states:
        prefix = required_field(state, "solution_prefix", str)
        if prefix == question:
            continue
        if not prefix.startswith(question):
            raise RecordError("prefix_without_question")
        # Try known lengths from the longest down: there are few, and each needs one lookup.
        known = next((n for n in reversed(lengths) if n < len(prefix) and prefix[:n] in places), None)
        text = prefix[len(question) :] if known is None else prefix[known:]
        nodes.append(_node(step_texts([text])[0], -1 if known is None else places[prefix[:known]], state))
        if prefix not in places:
            places[prefix] = len(nodes) - 1
            bisect.insort(lengths, len(prefix))
    return nodes


def _node(text: str, parent: int, state: Record) -> TreeNode:
    return TreeNode(parse_step(text), parent, StepLabel(target=soft_value(state.get("mc_value")), rule="omega-prm"))
