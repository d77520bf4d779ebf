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
from vlprm.schema import path_to
from vlprm.serving.messages import messages
from vlprm.serving.wire import ShownImage, data_url
from vlprm.steps import join_steps, separator_after, turns_of

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
        steps = [tree.steps[n] for n in path_to(tree.parents[pair.better], tree.parents)]
        turns = messages(tree.problem, steps, inputs, lambda *image: ShownImage(data_url(*image)))
        prompt = [_trl_message(turn["role"], turn["content"]) for turn in turns]
        if prompt[-1]["role"] == "assistant":
            begun = join_steps(turns_of(steps)[-1]) + separator_after(steps[-1])
            prompt[-1] = _trl_message("assistant", begun)
        images = [part for turn in turns for part in turn["content"] if isinstance(part, ShownImage)]
        yield {
            "images": [{"bytes": from_data_url(image.url.decode()), "path": None} for image in images],
            "prompt": prompt,
            "chosen": [_trl_message("assistant", tree.steps[pair.better].text)],
            "rejected": [_trl_message("assistant", tree.steps[pair.worse].text)],
        }


def _trl_message(role: str, content: str | Sequence[Any]) -> dict[str, Any]:
    parts: Sequence[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return {
        "role": role,
        "content": [
            {"type": "image", "text": None} if isinstance(part, ShownImage) else {"type": "text", "text": part["text"]}
            for part in parts
        ],
    }
