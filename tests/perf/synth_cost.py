"""Cost of a label in rollouts and tokens, per distinct prefix with rollouts of its own, and its accuracy.

    python -m tests.perf.synth_cost

Measured in the world of tests.perf.mock (k = 8, 200 rollouts per problem, problems that are solved sometimes but not
always), and on the built-in tasks with the built-in policy. A hard label says that no rollout of the prefix reached the
answer; it is right if the prefix truly has a wrong step.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from data_synth.search.config import TreeSearchConfig
from data_synth.search.estimators import search
from data_synth.search.tree import is_mixed
from tests.perf.mock import FAMILY, MockEngine
from tests.perf.results import write_result
from vlprm.model.loading import load_policy
from vlprm.policy import Continuation, Policy, Request
from vlprm.policy.local import LocalPolicy
from vlprm.schema import Problem, Region, StepTree
from vlprm.tasks import TASKS, problem_by_id, task_of
from vlprm.tasks.synthetic import SyntheticFamily, item_ids
from vlprm.zoom.boxes import Size

MOCK = TreeSearchConfig(root_rollouts=8, rollouts=8, searches=100, budget=200, solutions=2)
BUILT_IN = TreeSearchConfig(root_rollouts=8, rollouts=8, searches=8, budget=200, solutions=2, max_tokens=160)
ADAPTIVE = {"decided": 0.9, "threshold": 0.2, "chunk": 2}
MOCK_PROBLEMS, BUILT_IN_PROBLEMS, FIRST_ITEM = 200, 100, 940_000
GOALS = {"rollouts_per_label_omega": 8.3, "rollouts_per_label_adaptive": 5.0}


class Watched:
    """A policy that records the prefixes from which it is asked."""

    def __init__(self, engine: Policy) -> None:
        self.engine, self.dialect, self.zoom = engine, engine.dialect, engine.zoom
        self.prefixes: set[tuple[str, ...]] = set()

    def seen_size(self, problem: Problem, shown: int | Region = 0) -> Size:
        return self.engine.seen_size(problem, shown)

    async def sample(self, request: Request) -> list[Continuation]:
        if "/" not in request.key.partition("#")[2]:  # the continuation after a zoom belongs to no prefix
            self.prefixes.add((request.problem.id, *(step.text for step in request.steps)))
        return await self.engine.sample(request)


def main() -> None:
    mock = [FAMILY.problem("train", i) for i in range(MOCK_PROBLEMS)]
    drawn = [problem_by_id(i, TASKS) for i in item_ids(list(TASKS.values()), "train", BUILT_IN_PROBLEMS, FIRST_ITEM)]
    policy = load_policy("builtin/policy", "cpu")
    rows = [
        *(measured("mock", name, mock, MockEngine(), config) for name, config in variants(MOCK)),
        *(measured("built-in", name, drawn, LocalPolicy(policy), config) for name, config in variants(BUILT_IN)),
    ]
    costs = {row["estimator"]: row["rollouts_per_label"] for row in rows if row["world"] == "mock"}
    value = {"rollouts_per_label_omega": costs["omega"], "rollouts_per_label_adaptive": costs["omega adaptive"]}
    write_result("synth_cost", rows, {key: (value[key], goal) for key, goal in GOALS.items()})


def variants(config: TreeSearchConfig) -> Iterable[tuple[str, TreeSearchConfig]]:
    yield "flat", dataclasses.replace(config, estimator="flat")
    yield "omega", config
    yield "omega adaptive", dataclasses.replace(config, **ADAPTIVE)


def measured(
    world: str, name: str, problems: Sequence[Problem], engine: Policy, config: TreeSearchConfig
) -> dict[str, Any]:
    watched = Watched(engine)
    trees = [tree for tree in asyncio.run(_search_all(problems, watched, config)) if is_mixed(tree)]
    by_id = {problem.id: problem for problem in problems}
    each = [_counts(by_id[tree.problem_id], tree, watched.prefixes) for tree in trees]
    sums = sum(each, Counter())
    low, high = _interval(each, "rollouts", "labels")
    print(f"{world}, {name}: {sums['rollouts'] / sums['labels']:.2f} rollouts a label", flush=True)
    return {
        "world": world, "estimator": name, "problems": len(trees), "labels": sums["labels"],
        "rollouts_per_label": sums["rollouts"] / sums["labels"], "interval": [low, high],
        "tokens_per_label": sums["tokens"] / sums["labels"], "requests_per_problem": sums["requests"] / len(trees),
        "negative_share": sums["negative"] / sums["labels"], "accuracy": sums["right"] / max(1, sums["judged"]),
        "rollouts_saved": 1 - sums["rollouts"] / sums["planned"],
    }  # fmt: skip


async def _search_all(problems: Sequence[Problem], engine: Policy, config: TreeSearchConfig) -> list[StepTree]:
    return list(await asyncio.gather(*(search(problem, engine, config, seed=1) for problem in problems)))


def _counts(problem: Problem, tree: StepTree, prefixes: set[tuple[str, ...]]) -> Counter[str]:
    counts = Counter(rollouts=tree.rollouts, planned=tree.planned, tokens=tree.tokens, requests=tree.requests)
    for node in range(len(tree.nodes)):
        steps = [tree.nodes[n].step for n in tree.path(node)]
        label = tree.nodes[node].label
        if (problem.id, *(step.text for step in steps)) not in prefixes or not label.mc_valid:
            continue
        negative = label.mc_correct == 0
        counts.update(labels=1, negative=negative)
        truth = _family(problem).verdicts(problem, steps)
        if all(truth):  # every step can be read
            clean = all(verdict is not None and verdict.correct for verdict in truth)
            counts.update(judged=1, right=clean != negative)
    return counts


def _family(problem: Problem) -> SyntheticFamily:
    return task_of(problem.task, {**TASKS, FAMILY.name: FAMILY})


def _interval(each: Sequence[Counter[str]], above: str, below: str) -> tuple[float, float]:
    """95% bootstrap interval, over problems, of a ratio of sums."""
    pairs = np.array([[counts[above], counts[below]] for counts in each], dtype=float)
    drawn = np.random.default_rng(0).integers(len(pairs), size=(2000, len(pairs)))
    sums = pairs[drawn].sum(axis=1)
    low, high = np.percentile(sums[:, 0] / sums[:, 1], [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    main()
