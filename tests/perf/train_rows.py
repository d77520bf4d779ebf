"""Three layouts to train on the same labels of the same trees, for train_throughput and train_memory.

    random_paths     one row per solution, random batches of a fixed size, as in TRL's PRMTrainer until it was removed
    budgeted_paths   one row per solution, batches of similar lengths under a token budget
    trees            one row per tree, under the same budget

A tree has depth 6 and branching 4, like a search tree: four steps at each depth, one of which continues.
"""

from __future__ import annotations

import io
import random
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from PIL import Image
from torch import Tensor

from tests.tiny_backbones import mrope, qwen2_processor, write_qwen
from train.loop.batches import model_inputs
from train.reward.batches import NOT_INPUTS, batch_rows
from train.reward.config import LossConfig
from train.reward.data import Example, labelled_row
from train.reward.losses import training_loss
from train.reward.planning import plan_epoch
from vlprm.data.dataset import LabelledPath
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.loading import Checkpoint, checkpoint_folder
from vlprm.model.reward_loading import load_reward_model
from vlprm.schema import Problem, Step, StepLabel

DEPTH, BRANCHING, WORDS = 6, 4, 24
ROWS_OF_A_RANDOM_BATCH, BUDGET = 8, 8192
SMALL_TEXT = {
    "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2,
    "intermediate_size": 1024,
}  # fmt: skip
SMALL_VISION = {
    "depth": 4, "num_heads": 4, "hidden_size": 128, "intermediate_size": 256, "out_hidden_size": 256,
    "fullatt_block_indexes": [3],
}  # fmt: skip
VARIANTS = ("random_paths", "budgeted_paths", "trees")
Trees = Sequence[Sequence[LabelledPath]]
VOCABULARY = [f"{c}{v}{d}" for c in "bdklmnrst" for v in "aeiou" for d in "nrst"]


@cache
def backbones() -> dict[str, tuple[str, int]]:
    """Folder of each backbone, and the side of its images in pixels, which give 16 and 484 image tokens."""
    folder = Path(tempfile.mkdtemp(prefix="train_rows-")) / "qwen2_5_vl"
    write_qwen2_5_vl(folder, SMALL_TEXT, SMALL_VISION, (4, 6, 6))
    return {"builtin": (str(checkpoint_folder("builtin/backbone")), 128), "qwen2_5_vl": (str(folder), 616)}


def write_qwen2_5_vl(
    folder: Path, text: dict[str, Any], vision: dict[str, Any], mrope_sections: tuple[int, int, int]
) -> None:
    """A checkpoint folder of random weights in these sizes, with a small vocabulary."""
    text = {"max_position_embeddings": 16_384, "rope_parameters": mrope(*mrope_sections), **text}
    processor = qwen2_processor(hf.Qwen2_5_VLProcessor, [" ".join(VOCABULARY)])
    vision = {"patch_size": 14, "window_size": 112, **vision}
    write_qwen(folder, hf.Qwen2_5_VLForConditionalGeneration, processor, text, vision)
    CheckpointConfig(max_pixels=616 * 616).save(folder)


def tree(index: int, side: int) -> list[LabelledPath]:
    """The solutions of one search tree over a random image."""
    rng = random.Random(index)
    pixels = np.random.default_rng(index).integers(0, 255, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    problem = Problem(f"tree {index}", "", "How many?", (buffer.getvalue(),), "1", "integer")
    trunk: list[tuple[int, Step, StepLabel]] = []
    paths: list[LabelledPath] = []
    for depth in range(DEPTH):
        children = [(depth * BRANCHING + k, _step(rng), StepLabel(target=rng.random())) for k in range(BRANCHING)]
        ends = children[1:] if depth < DEPTH - 1 else children
        for child in ends:
            nodes, steps, labels = zip(*trunk, child, strict=True)
            paths.append(LabelledPath(problem, steps, nodes, labels, rng.random() < 0.5))
        trunk.append(children[0])
    return paths


def _step(rng: random.Random) -> Step:
    return Step("reasoning", " ".join(rng.choices(VOCABULARY, k=WORDS)))


def batches_of(variant: str, trees: Trees, checkpoint: Checkpoint) -> list[dict[str, Tensor]]:
    examples: list[Example] = [*trees] if variant == "trees" else [[path] for tree in trees for path in tree]
    if variant == "random_paths":
        order = random.Random(0).sample(examples, len(examples))
        planned = [order[i : i + ROWS_OF_A_RANDOM_BATCH] for i in range(0, len(order), ROWS_OF_A_RANDOM_BATCH)]
    else:
        sizes = [len(_row(example, checkpoint).row.ids) for example in examples]
        plan = plan_epoch(sizes, BUDGET, seed=0, windows=[range(len(sizes))])
        planned = [[examples[i] for i in batch] for batch in plan]
    return [batch_rows([_row(example, checkpoint) for example in batch], checkpoint.inputs) for batch in planned]


def _row(example: Example, checkpoint: Checkpoint) -> Any:
    return labelled_row(example, checkpoint.inputs, LossConfig(), {})


def checkpoint_for(folder: str) -> Checkpoint:
    checkpoint = load_reward_model(folder, new_head="step")
    checkpoint.model.train()
    return checkpoint


def train_on(batches: Sequence[dict[str, Tensor]], checkpoint: Checkpoint) -> float:
    """One optimizer step over all batches with accumulated gradients; returns the loss."""
    optimizer = torch.optim.AdamW(checkpoint.model.parameters(), lr=0.0)
    totals = torch.stack([batch["totals"] for batch in batches]).sum(0)
    total = 0.0
    for batch in batches:
        loss = training_loss(checkpoint.model(**model_inputs(batch, NOT_INPUTS)), batch, totals, LossConfig())
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


def real_tokens(batches: Sequence[dict[str, Tensor]]) -> int:
    return sum(int(batch["attention_mask"].sum()) for batch in batches)
