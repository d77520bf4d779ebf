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
from vlprm.schema import Problem, Step, path_to
from vlprm.serving.messages import messages, with_question
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
        yield {
            **trl_prompt(tree.problem, steps, inputs, begins_step=True),
            "chosen": [trl_message("assistant", tree.steps[pair.better].text)],
            "rejected": [trl_message("assistant", tree.steps[pair.worse].text)],
        }


def trl_prompt(
    problem: Problem, steps: Sequence[Step], inputs: InputBuilder, question: str = "", begins_step: bool = False
) -> dict[str, Any]:
    """The columns `images` and `prompt` of a problem, steps, and a question about them. With `begins_step`, the
    assistant's turn ends with the separator before the next step."""
    turns = messages(problem, steps, inputs, lambda *image: ShownImage(data_url(*image)))
    if begins_step and turns[-1]["role"] == "assistant":
        turns[-1] = {"role": "assistant", "content": join_steps(turns_of(steps)[-1]) + separator_after(steps[-1])}
    if question:
        turns = with_question(turns, question)
    images = [part for turn in turns for part in turn["content"] if isinstance(part, ShownImage)]
    return {
        "images": [{"bytes": from_data_url(image.url.decode()), "path": None} for image in images],
        "prompt": [trl_message(turn["role"], turn["content"]) for turn in turns],
    }


def trl_message(role: str, content: str | Sequence[Any]) -> dict[str, Any]:
    parts: Sequence[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return {
        "role": role,
        "content": [
            {"type": "image", "text": None} if isinstance(part, ShownImage) else {"type": "text", "text": part["text"]}
            for part in parts
        ],
    }
