"""Pairs of next steps as rows of TRL's preference format, for its DPOTrainer.

images     List(Image): the problem's images, then the crops of the zooms before the pair
prompt     messages; if the solution has begun, the last one is the assistant's, to be continued
chosen     one assistant message: the better step; `rejected`: the worse one
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from datasets import Image, List

from train.policy.pairs import PairTree
from vlprm.data.trl_format import TURNS
from vlprm.model.inputs import InputBuilder
from vlprm.schema import path_to
from vlprm.serving.trl_turns import trl_turn, trl_turns
from vlprm.steps import join_steps, separator_after, turns_of

TRL_FEATURES = {"images": List(Image(decode=False)), "prompt": TURNS, "chosen": TURNS, "rejected": TURNS}


def trl_rows(tree: PairTree, inputs: InputBuilder) -> Iterator[dict[str, Any]]:
    """A row for each pair of a tree."""
    for pair in tree.pairs:
        steps = [tree.steps[n] for n in path_to(tree.parents[pair.better], tree.parents)]
        prompt, images = trl_turns(tree.problem, steps, inputs)
        if prompt[-1]["role"] == "assistant":
            begun = join_steps(turns_of(steps)[-1]) + separator_after(steps[-1])
            prompt[-1] = trl_turn("assistant", begun)
        yield {
            "images": images,
            "prompt": prompt,
            "chosen": [trl_turn("assistant", tree.steps[pair.better].text)],
            "rejected": [trl_turn("assistant", tree.steps[pair.worse].text)],
        }
