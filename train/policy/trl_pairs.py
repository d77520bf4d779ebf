"""Pairs of next steps as rows of TRL's preference format, for its DPOTrainer.

images     List(Image): the problem's images, then the crops of the zooms before the pair
prompt     messages; if the solution has begun, the last one is the assistant's, to be continued
chosen     one assistant message: the better step; `rejected`: the worse one
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from datasets import Image, List, Value

from train.policy.pairs import PairTree
from vlprm.data.importing import from_data_url
from vlprm.model.inputs import InputBuilder
from vlprm.serving.client import data_url
from vlprm.serving.messages import messages
from vlprm.steps import SEPARATOR

_MESSAGES = List({"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string")})})
TRL_FEATURES = {
    "images": List(Image(decode=False)),
    "prompt": _MESSAGES,
    "chosen": _MESSAGES,
    "rejected": _MESSAGES,
}


def trl_rows(tree: PairTree, inputs: InputBuilder) -> Iterator[dict[str, Any]]:
    """A row for each pair of a tree."""
    for pair in tree.pairs:
        before: list[int] = []
        node = tree.parents[pair.better]
        while node >= 0:
            before.insert(0, node)
            node = tree.parents[node]
        steps = [tree.steps[n] for n in before]
        turns = messages(tree.problem, steps, inputs, data_url)
        prompt = [_trl_message(turn["role"], turn["content"]) for turn in turns]
        if prompt[-1]["role"] == "assistant" and not prompt[-1]["content"][0]["text"].endswith(SEPARATOR):
            prompt[-1]["content"][0]["text"] += SEPARATOR
        yield {
            "images": [{"bytes": from_data_url(url), "path": None} for turn in turns for url in _urls(turn["content"])],
            "prompt": prompt,
            "chosen": [_trl_message("assistant", tree.steps[pair.better].text)],
            "rejected": [_trl_message("assistant", tree.steps[pair.worse].text)],
        }


def _trl_message(role: str, content: str | Sequence[dict[str, Any]]) -> dict[str, Any]:
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return {
        "role": role,
        "content": [
            {"type": "image", "text": None} if part["type"] == "image_url" else {"type": "text", "text": part["text"]}
            for part in parts
        ],
    }


def _urls(content: str | Sequence[dict[str, Any]]) -> list[str]:
    parts = [] if isinstance(content, str) else content
    return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
