"""Learning from rollouts as packed trees, in which images, prompts and shared beginnings stand once, or path by path.

    python -m tests.perf.policy_trees [PROBLEMS]        (a few minutes on two cores)

The built-in backbone samples solutions with crops (fine_print) and without (count_grid). The same rollouts are learnt
as one row per problem and as one row per solution, in batches of the same token budget, interleaved in one process;
medians of the rounds are compared, and losses must be equal.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from tests.perf.results import write_result
from train.loop.batches import model_inputs
from train.policy.batches import NOT_INPUTS, PolicyRow, policy_batch, policy_row
from train.policy.config import PolicyLossConfig
from train.policy.losses import tree_policy_loss
from train.policy.model import load_packed_policy
from train.policy.sft_rows import as_trajectory
from train.policy.solutions import Taught
from train.policy.trajectories import path_of
from vlprm.model.loading import Checkpoint
from vlprm.model.packing import padded_batches
from vlprm.policy import Request
from vlprm.policy.local import LocalPolicy
from vlprm.policy.rollout import rollouts
from vlprm.schema import Problem, Solution
from vlprm.tasks import TASKS

PROBLEMS, EACH, BUDGET, ROUNDS = 8, 8, 8192, 3
POLICY, FAMILIES = "builtin/backbone", ("count_grid", "fine_print")
LOSS = PolicyLossConfig("ppo")
Batches = list[dict[str, Any]]


def main(count: int = PROBLEMS) -> None:
    checkpoint = load_packed_policy(POLICY)
    rows = [row for family in FAMILIES for row in measured(family, checkpoint, count)]
    of = {(row["family"], row["layout"]): row for row in rows}
    ratios = {
        name: (of[family, "paths"]["seconds"] / of[family, "trees"]["seconds"], 2.0)
        for name, family in (("trees_over_paths", "count_grid"), ("trees_over_paths_with_crops", "fine_print"))
    }
    write_result("policy_trees", rows, ratios)


def measured(family: str, checkpoint: Checkpoint, count: int) -> list[dict[str, Any]]:
    problems = [TASKS[family].problem("train", 9000 + i) for i in range(count)]
    solutions = asyncio.run(sampled(LocalPolicy(checkpoint), problems))
    rows = {
        "trees": [row_of(p, of_problem, checkpoint) for p, of_problem in zip(problems, solutions, strict=True)],
        "paths": [
            row_of(p, [one], checkpoint)
            for p, of_problem in zip(problems, solutions, strict=True)
            for one in of_problem
        ],
    }
    batches = {layout: batches_of(made, checkpoint) for layout, made in rows.items()}
    losses = {layout: learnt(made, checkpoint) for layout, made in batches.items()}  # warms up, too
    assert abs(losses["trees"] - losses["paths"]) < 1e-4, losses
    seconds: dict[str, list[float]] = {layout: [] for layout in batches}
    for _ in range(ROUNDS):
        for layout, made in batches.items():
            started = time.perf_counter()
            learnt(made, checkpoint)
            seconds[layout].append(time.perf_counter() - started)
    found = []
    for layout, made in rows.items():
        took = seconds[layout]
        tokens = sum(len(row.row.ids) for row in made)
        zooms = sum(step.ends_turn for of_problem in solutions for one in of_problem for step in one.steps)
        found.append(
            {
                "family": family, "layout": layout, "rollouts": count * EACH, "zooms": zooms, "tokens": tokens,
                "seconds": statistics.median(took), "least": min(took), "most": max(took),
            }
        )  # fmt: skip
        print(found[-1], flush=True)
    return found


async def sampled(policy: LocalPolicy, problems: Sequence[Problem]) -> list[list[Solution]]:
    """Solutions with at least one whole step."""
    asked = [rollouts(policy, Request(p, (), EACH, p.id, seed=1, max_tokens=160)) for p in problems]
    return [[one for one in of_problem if one.steps] for of_problem in await asyncio.gather(*asked)]


def row_of(problem: Problem, solutions: Sequence[Solution], checkpoint: Checkpoint) -> PolicyRow:
    """A row of solutions, each step with an advantage that depends on its text alone."""
    taught = [Taught(one.steps, (True,) * len(one.steps)) for one in solutions]
    made = [as_trajectory(problem, one, checkpoint.inputs) for one in taught]
    advantages = [[random.Random(step.text).uniform(-1, 1) for step in one.steps] for one in solutions]
    return policy_row(
        problem, [path_of(one, problem, checkpoint.inputs) for one in made], advantages, checkpoint.inputs
    )


def batches_of(rows: Sequence[PolicyRow], checkpoint: Checkpoint) -> Batches:
    groups = padded_batches([len(row.row.ids) for row in rows], BUDGET)
    return list(map(partial(policy_batch, inputs=checkpoint.inputs), ([rows[i] for i in of] for of in groups)))


def learnt(batches: Batches, checkpoint: Checkpoint) -> float:
    """Forward and backward over all batches; the loss."""
    checkpoint.model.zero_grad()
    totals = torch.stack([batch["totals"] for batch in batches]).sum(0)
    value = 0.0
    for batch in batches:
        seen = model_inputs(batch, NOT_INPUTS)
        log_p = checkpoint.model(**seen).log_p
        now = {**batch, "sampled": log_p.detach(), "reference": log_p.detach()}
        loss, _ = tree_policy_loss(log_p, now, totals, LOSS)
        loss.backward()
        value += loss.item()
    return value


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
