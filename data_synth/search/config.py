"""Configs of `data_synth.trees` and `data_synth.rounds`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, OpenUnitInterval, PositiveInt

from vlprm.serving.config import ModelConfig
from vlprm.tasks import TASKS


@dataclass(frozen=True)
class TreeSearchConfig:
    """Search of one problem. `alpha`, `beta`, `length` (L) and `c_puct` are named as in OmegaPRM (arXiv 2406.06592).

    Args:
        estimator: omega (binary search for first errors) or flat (rollouts at every prefix).
        root_rollouts: rollouts from the problem itself; if all are right or all wrong, the search ends there.
        rollouts: rollouts per prefix (OmegaPRM's k).
        searches: omega: maximum number of binary searches per problem.
        searches_at_once: omega: binary searches run concurrently (the paper's algorithm: 1); more take fewer rounds of
            requests.
        budget: rollouts per problem; once they are used, no other prefix is sampled.
        solutions: flat: number of root rollouts whose prefixes are all sampled.
        alpha: omega: base of the value term alpha^(1 - value) in Q.
        beta: omega: base of the length term beta^(tokens / length) in Q.
        length: omega: length scale L of Q, in tokens.
        c_puct: omega: weight of exploration.
        decided: stop sampling a prefix once the posterior probability that its value is above (or below) `threshold`
            reaches this level. For hard labels only, because early stopping biases the value. Default: never stop.
        threshold: with `decided`: value above which a prefix counts as correct.
        chunk: with `decided`: rollouts between two checks of the posterior.
        temperature: sampling temperature of the policy.
        max_tokens: maximum tokens per turn of a rollout.
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
    max_tokens: PositiveInt = 1024


@dataclass(frozen=True)
class TreesConfig:
    """Grow search trees.

    Args:
        run: run folder to write.
        policy: the policy whose steps are searched.
        tasks: task names or module paths.
        split: split of the tasks.
        problems: number of problems, spread evenly over the tasks.
        problem_file: file with your own problems, used in place of the tasks; see vlprm/data/problem_file.py.
        unit: problems searched together in one process; shards and Ray workers get whole units.
        in_flight: maximum number of problems searched at once with a served policy.
        search: estimator and its parameters.
        seed: random seed of all samples.
        shard: i/n: search every n-th unit from the i-th on (i starts at 0), in a subfolder of `run`.
        ray: address of the Ray cluster to use, or `auto` for this machine's; leave empty to run in this process.
        workers: Ray actors, each with its own policy engine.
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


@dataclass(frozen=True)
class RoundsConfig:
    """Make search trees of the rounds of a policy in training.

    Args:
        grpo: run folder of train.grpo; it may still be running.
        run: run folder to write.
        newest: number of newest rounds that are read; 0 reads all.
    """

    grpo: Path
    run: Path
    newest: NonNegativeInt = 0
