"""Seconds to score N candidates of a problem: as one tree with a KV cache, and in the usual ways.

    python -m tests.perf.scoring

    packed         vlprm.scoring.tree: the image, the prompt and shared steps once
    batched        one padded batch of N complete rows
    rows           one row at a time
    prefix_calls   one call for each prefix of each candidate, as in VL-PRM's search (arXiv 2509.23250)

Candidates share only the prompt. The four variants run interleaved in one process with the same model, and the medians
of the rounds are compared. Their rewards must be equal. `limit` is the speed-up that the token counts of packed and
batched predict. The headline is for 16 candidates and 1,000 image tokens: the smaller ratio of the two backbones.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from PIL import Image

from tests.perf.results import write_result
from tests.perf.train_rows import SMALL_TEXT, SMALL_VISION, VOCABULARY, write_qwen2_5_vl
from tests.tiny_backbones import mrope, write_qwen
from vlprm.builtin.make import make_processor, make_tokenizer
from vlprm.images import png
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.loading import Checkpoint
from vlprm.model.reward_loading import load_reward_model
from vlprm.model.reward_model import step_scores
from vlprm.schema import Problem, Step
from vlprm.scoring.tree import score

CANDIDATES, IMAGE_SIDES = (1, 4, 16, 64), (16, 32)  # and the sides of an image, in tokens
STEPS, WORDS, ROUNDS = 8, 24, 3
MOST_PREFIX_CALLS = 16  # candidates: above this, the slowest variant is left out, and the others are timed once
Rewards = list[list[float]]


@cache
def backbones() -> dict[str, tuple[Checkpoint, int]]:
    """A reward model with random weights of each architecture, and the side of an image token in pixels."""
    folder = Path(tempfile.mkdtemp(prefix="scoring-"))
    write_qwen2_5_vl(folder / "qwen2_5_vl", SMALL_TEXT, SMALL_VISION, (4, 6, 6))
    write_qwen3_vl(folder / "qwen3_vl")
    return {name: (_random_head(folder / name), side) for name, side in (("qwen2_5_vl", 28), ("qwen3_vl", 32))}


def write_qwen3_vl(folder: Path) -> None:
    rope = mrope(6, 5, 5, mrope_interleaved=True)
    text = {**SMALL_TEXT, "head_dim": 32, "rope_parameters": rope, "max_position_embeddings": 16_384}
    vision = {"depth": 4, "num_heads": 4, "hidden_size": 128, "intermediate_size": 256, "out_hidden_size": 256,
              "patch_size": 16, "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 2304}  # fmt: skip
    processor = make_processor(make_tokenizer([" ".join(VOCABULARY)], 400))
    write_qwen(folder, hf.Qwen3VLForConditionalGeneration, processor, text, vision)


def _random_head(folder: Path) -> Checkpoint:
    CheckpointConfig(max_pixels=2048 * 2048).save(folder)
    checkpoint = load_reward_model(folder, new_head="step")
    torch.manual_seed(0)
    torch.nn.init.normal_(checkpoint.model.score.weight, std=0.1)
    return checkpoint


def problem_and_candidates(side: int, candidates: int) -> tuple[Problem, list[list[Step]]]:
    rng = random.Random(0)
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    problem = Problem("p", "", "How many?", (png(Image.fromarray(pixels)),), "1", "integer")
    steps = [
        [Step("reasoning", " ".join(rng.choices(VOCABULARY, k=WORDS))) for _ in range(STEPS)] for _ in range(candidates)
    ]
    return problem, steps


def packed(checkpoint: Checkpoint, problem: Problem, candidates: list[list[Step]]) -> Rewards:
    return score(checkpoint, [(problem, steps) for steps in candidates])  # type: ignore[return-value]


@torch.inference_mode()
def batched(checkpoint: Checkpoint, problem: Problem, candidates: list[list[Step]]) -> Rewards:
    rows = [checkpoint.inputs.row(problem, steps) for steps in candidates]
    found = step_scores(checkpoint.model(**checkpoint.inputs.step_batch(rows)), "step")
    return [[s.correct for s in scores[: len(row.step_ends)]] for row, scores in zip(rows, found, strict=True)]


def rows(checkpoint: Checkpoint, problem: Problem, candidates: list[list[Step]]) -> Rewards:
    return [batched(checkpoint, problem, [steps])[0] for steps in candidates]


def prefix_calls(checkpoint: Checkpoint, problem: Problem, candidates: list[list[Step]]) -> Rewards:
    return [[batched(checkpoint, problem, [steps[: k + 1]])[0][-1] for k in range(len(steps))] for steps in candidates]


WAYS: dict[str, Callable[[Checkpoint, Problem, list[list[Step]]], Rewards]] = {
    "packed": packed, "batched": batched, "rows": rows, "prefix_calls": prefix_calls,
}  # fmt: skip


def main() -> None:
    table = [
        measured(name, checkpoint, side * token, n)
        for name, (checkpoint, token) in backbones().items() for side in IMAGE_SIDES for n in CANDIDATES
    ]  # fmt: skip
    chosen = [row for row in table if row["candidates"] == 16 and row["image_tokens"] == IMAGE_SIDES[-1] ** 2]
    over = {
        way: min(row["seconds"][way] / row["seconds"]["packed"] for row in chosen)
        for way in ("batched", "prefix_calls")
    }
    share = min(row["seconds"]["batched"] / row["seconds"]["packed"] / row["limit"] for row in chosen)
    write_result("scoring", table, {
        "packed_over_batched_n16": (over["batched"], 4.0),
        "packed_over_prefix_calls_n16": (over["prefix_calls"], 20.0),
        "share_of_limit_n16": (share, 0.8),
        "max_abs_error": (max(row["max_abs_error"] for row in table), 1e-4),
    })  # fmt: skip


def measured(backbone: str, checkpoint: Checkpoint, side: int, n: int) -> dict[str, Any]:
    problem, candidates = problem_and_candidates(side, n)
    ways = {name: way for name, way in WAYS.items() if name != "prefix_calls" or n <= MOST_PREFIX_CALLS}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    rewards: dict[str, np.ndarray] = {}
    for turn in range((ROUNDS if n <= MOST_PREFIX_CALLS else 1) + 1):  # the first warms up
        for name, way in ways.items():
            if name == "prefix_calls" and n == MOST_PREFIX_CALLS and turn != 1:
                continue
            started = time.perf_counter()
            rewards[name] = np.array(way(checkpoint, problem, candidates))
            if turn:
                seconds[name].append(time.perf_counter() - started)
    row_tokens = [len(checkpoint.inputs.row(problem, steps).ids) for steps in candidates]
    prompt = len(checkpoint.inputs.prompt(problem).ids)
    result = {
        "backbone": backbone,
        "image_tokens": sum(checkpoint.inputs.prompt(problem).image_mask),
        "candidates": n,
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "least": {name: min(values) for name, values in seconds.items()},
        "most": {name: max(values) for name, values in seconds.items()},
        "limit": sum(row_tokens) / (sum(row_tokens) - (n - 1) * prompt),
        "max_abs_error": max(float(abs(found - rewards["packed"]).max()) for found in rewards.values()),
    }
    print(result, flush=True)
    return result


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
