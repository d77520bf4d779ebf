"""Tokens that are in memory while many problems are scored, and the share of a pass that goes into its mask.

    python -m tests.perf.score_memory

Each problem has eight candidates of 30 steps, in trees of about 4,000 tokens. They are scored together within a budget
of tokens, on a model with random weights. Counted are the tokens kept and new at a time. The headline compares 50
problems with 16, which already fill the budget. Then one tree with long candidates grows step by step, and the time
that its passes spend on masks is compared with all of their time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests.perf.results import write_result
from tests.perf.scoring import _random_head, problem_and_candidates, write_qwen3_vl
from vlprm.model.loading import Checkpoint
from vlprm.schema import Problem, Step
from vlprm.scoring import kv_tree
from vlprm.scoring.memory import TreeMemory
from vlprm.scoring.scored_tree import ScoredTree

PROBLEMS, CANDIDATES, STEPS, SIDE = (1, 4, 16, 50), 8, 30, 8 * 32
BUDGET = 8192
DEPTHS, ROUNDS = 12, 3


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="score_memory-"))
    write_qwen3_vl(folder)
    checkpoint = _random_head(folder)
    problem, candidates = problem_with_long_candidates()
    rows = [in_memory(checkpoint, problem, candidates, count) for count in PROBLEMS]
    masks = [masked(checkpoint, problem, candidates) for _ in range(ROUNDS + 1)][1:]  # the first warms up
    share = sorted(row["share"] for row in masks)[ROUNDS // 2]
    most = {row["problems"]: row["most_tokens"] for row in rows}
    write_result("score_memory", [*rows, *masks], {
        "peak_50_over_16": (most[50] / most[16], 1.0),
        "peak_over_budget": (max(most.values()) / BUDGET, 1.0),
        "mask_share": (share, 0.05),
    })  # fmt: skip


def problem_with_long_candidates() -> tuple[Problem, list[list[Step]]]:
    problem, _ = problem_and_candidates(SIDE, 1)
    words = " ".join(f"{k}" for k in range(6))
    steps = [[Step("reasoning", f"{words} {c} {k}") for k in range(STEPS)] for c in range(CANDIDATES)]
    return problem, steps


def in_memory(checkpoint: Checkpoint, problem: Problem, candidates: list[list[Step]], count: int) -> dict[str, Any]:
    """The most tokens that are kept and new at a time while this number of problems is scored."""
    trees = [ScoredTree(checkpoint.inputs, replace(problem, question=f"How many {i}?")) for i in range(count)]
    for tree in trees:
        tree.ask(candidates)
    most, real = 0, kv_tree._forward

    def counted(checkpoint: Checkpoint, parts: Sequence[Any]) -> None:
        nonlocal most
        new = sum(len(node.segment.ids) for part in parts for node in part.nodes)
        most = max(most, new + sum(tree.cache.kept for tree in trees))
        real(checkpoint, parts)

    kv_tree._forward = counted
    started = time.perf_counter()
    try:
        TreeMemory(checkpoint, BUDGET).read(trees, keep=False)
    finally:
        kv_tree._forward = real
    row = {
        "problems": count,
        "tokens": sum(sum(tree.new_tokens) for tree in trees),
        "most_tokens": most,
        "seconds": time.perf_counter() - started,
    }
    print(row, flush=True)
    return row


def masked(checkpoint: Checkpoint, problem: Problem, candidates: list[list[Step]]) -> dict[str, Any]:
    """The seconds in which a tree grows by a step of each candidate, and those of its masks."""
    tree, memory = ScoredTree(checkpoint.inputs, problem), TreeMemory(checkpoint)
    seconds, real = 0.0, kv_tree._mask

    def timed(*args: Any) -> Any:
        nonlocal seconds
        started = time.perf_counter()
        made = real(*args)
        seconds += time.perf_counter() - started
        return made

    kv_tree._mask = timed
    started = time.perf_counter()
    try:
        for depth in range(STEPS - DEPTHS, STEPS + 1):
            tree.ask([steps[:depth] for steps in candidates])
            memory.read([tree], keep=True)
    finally:
        kv_tree._mask = real
    whole = time.perf_counter() - started
    row = {"kept": tree.cache.kept, "seconds": whole, "mask_seconds": seconds, "share": seconds / whole}
    print(row, flush=True)
    return row


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
