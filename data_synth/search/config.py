"""What `data_synth.trees` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, OpenUnitInterval, PositiveInt

from vlprm.serving.config import ModelConfig
from vlprm.tasks import TASKS


@dataclass(frozen=True)
class TreeSearchConfig:
    """How a problem is searched. `alpha` to `c_puct` are OmegaPRM's, named as in the paper.

    Args:
        estimator: omega (binary search of first errors) or flat (rollouts at every prefix), see
            data_synth.search.estimators.
        root_rollouts: rollouts from the problem; all right or all wrong, and it is searched no further.
        rollouts: k, rollouts from a prefix.
        searches: omega: most binary searches a problem.
        searches_at_once: omega: how many of them go on side by side; with more than the paper's one, a problem takes
            fewer rounds of requests.
        budget: rollouts of a problem after which no further prefix gets any.
        solutions: flat: how many of the root's rollouts get rollouts at every prefix.
        alpha: omega: weight of a state's value in Q.
        beta: omega: weight of a rollout's length in Q.
        length: omega: L, the length in tokens that Q counts as long.
        c_puct: omega: weight of exploration.
        decided: stop the rollouts of a prefix when the posterior that its value is above `threshold`, or below it, has
            reached this level. For hard labels alone: a share of rollouts that stopped on success is biased. None:
            make them all.
        threshold: the value that decides whether a prefix is good, where `decided` is given.
        chunk: rollouts between two looks at the posterior.
        temperature: of the policy's sampling.
        max_tokens: of one turn of a rollout.
    """

    estimator: Literal["omega", "flat"] = "omega"
    root_rollouts: PositiveInt = 8
    rollouts: PositiveInt = 4
    searches: NonNegativeInt = 4
    searches_at_once: PositiveInt = 1
    budget: PositiveInt = 1000
    solutions: PositiveInt = 4
    alpha: ClosedUnitInterval = 0.5
    beta: ClosedUnitInterval = 0.9
    length: PositiveInt = 100
    c_puct: NonNegativeFloat = 0.125
    decided: OpenUnitInterval | None = None
    threshold: ClosedUnitInterval = 0.2
    chunk: PositiveInt = 2
    temperature: NonNegativeFloat = 1.0
    max_tokens: PositiveInt = 160


@dataclass(frozen=True)
class TreesConfig:
    """Grow search trees.

    Args:
        run: folder to write.
        policy: the model whose steps are searched.
        tasks: task names or module paths.
        split: split of the tasks.
        problems: how many, over all tasks, taking turns.
        problem_file: file of one's own problems, in place of the tasks; see vlprm/data/problem_file.py.
        unit: problems that are searched together in this process; shards and Ray's workers are given whole units.
        in_flight: most problems that are searched at once with servers.
        search: the estimator and its numbers.
        seed: decides every sample.
        shard: i/n: every n-th unit, from the i-th on (from 0), into a folder of its own in `run`.
        ray: address of a Ray cluster that does the work, `auto` for the one of this machine; none: this process does.
        workers: actors on the Ray cluster, each with an engine.
    """

    run: Path
    policy: ModelConfig = ModelConfig("builtin/policy")
    tasks: tuple[str, ...] = tuple(TASKS)
    split: str = "train"
    problems: PositiveInt = 1000
    problem_file: Path | None = None
    unit: PositiveInt = 125
    in_flight: PositiveInt = 256
    search: TreeSearchConfig = TreeSearchConfig()
    seed: int = 0
    shard: str = "0/1"
    ray: str = ""
    workers: PositiveInt = 1
