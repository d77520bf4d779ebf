"""The demo's reward models at several seeds. In the world of the *stranger*, the model starts from a larger backbone
that was taught otherwise; in that of the *self*, from the weights of the policy, whose blind spots it shares."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from eval.runs.pools import Pool
from eval.runs.results import read_runs
from tests.perf.datasets import DEMO
from tests.perf.label_schemes import SCHEMES, scored, trained

World = Literal["stranger", "self"]
SEEDS = 3
RUNS: dict[World, Path] = {"stranger": DEMO / "eval", "self": DEMO / "self/eval"}
SCHEME_OF: dict[World, str] = {"stranger": "demo (soft, keep)", "self": "self: demo (soft, keep)"}


def reward_model(world: World, seed: int) -> Path:
    """The reward model of a world: the demo's, or the same recipe with another seed, trained unless it is there."""
    name = SCHEME_OF[world]
    return RUNS[world].with_name("prm") if seed == 0 else trained(name, SCHEMES[name], seed)


def scored_pools(world: World) -> list[list[Pool]]:
    """The demo's candidates with the scores of each seed's reward model."""
    name = SCHEME_OF[world]
    demo = list(read_runs([RUNS[world]], pools=True, steps=True)[0].pools.values())
    return [demo, *(scored(name, SCHEMES[name], seed) for seed in range(1, SEEDS))]
