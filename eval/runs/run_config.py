"""The config of eval.run, which its jobs, its worker and the pages of a run read too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jsonargparse.typing import PositiveInt

from eval.runs.problem_sets import ProblemSetConfig
from vlprm.scoring.config import ScorerConfig
from vlprm.search import SearchConfig
from vlprm.serving.config import ServerConfig


@dataclass(frozen=True)
class RunConfig:
    """Run methods on benchmarks.

    Args:
        run: folder to write.
        policy: checkpoint of the policy.
        benchmarks: what is asked; see eval/runs/problem_sets.py for the fields.
        methods: names of vlprm.search.METHODS, or paths of modules with a METHOD.
        search: what they share.
        reward_model: checkpoint of the reward model, where a method needs one.
        scorer: what is asked of the reward model.
        whole: score each candidate of a pool once more, as one step; with the reward model in this process.
        critic: checkpoint of a reward model that has learnt critiques, where a method needs one.
        server: where the policy is served, in place of this process; `policy` is the folder that is served.
        scores: where the reward model is served, in place of this process.
        unit: problems that are solved side by side; with the policy in process, recorded together.
        shard: which part of the problems, such as 0/4.
        ray: address of a Ray cluster that does the work, `auto` for the one of this machine; none: this process does.
        workers: actors on the Ray cluster, each with the models that are not served, and a unit.
        device: auto (the GPU where there is one), cpu, cuda, or cuda:1 and so on; config.yaml keeps what auto was.
        dtype: float32, or bfloat16 for half the memory.
    """

    run: Path
    policy: str
    benchmarks: tuple[ProblemSetConfig, ...]
    methods: tuple[str, ...] = ("best_of_n",)
    search: SearchConfig = SearchConfig()
    reward_model: str | None = None
    scorer: ScorerConfig = ScorerConfig()
    whole: bool = False
    critic: str | None = None
    server: ServerConfig = ServerConfig()
    scores: ServerConfig = ServerConfig()
    unit: PositiveInt = 32
    shard: str = "0/1"
    ray: str = ""
    workers: PositiveInt = 1
    device: str = "auto"
    dtype: str = "float32"
