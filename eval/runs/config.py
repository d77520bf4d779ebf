"""Configs of the commands that solve problems: `eval.run`, `eval.solve`, `eval.faithfulness`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt

from vlprm.schema import AnswerType
from vlprm.scoring.config import ScorerConfig
from vlprm.search import SearchConfig
from vlprm.serving.config import ModelConfig


@dataclass(frozen=True)
class ProblemSetConfig:
    """One benchmark of a run.

    Args:
        name: published benchmark, drawn task family, or module path of either; any name for a problem_file.
        data: folder of the benchmark, as in its public repository; omit to download it from the Hub.
        subset: subset of the benchmark's items.
        style: prompt style: steps (asks for tagged steps) or official (the authors' own prompt).
        split: split of a drawn task family.
        problems: number of problems, from the first; 0 for all (drawn families need a number).
        problem_file: file of your own problems, in the format of vlprm/data/problem_file.py.
    """

    name: str
    data: Path | None = None
    subset: str = "all"
    style: str = "steps"
    split: str = "test"
    problems: NonNegativeInt = 0
    problem_file: Path | None = None


@dataclass(frozen=True)
class RunConfig:
    """Run methods on benchmarks.

    Args:
        run: folder to write.
        policy: model that writes solutions.
        benchmarks: benchmarks to run; `--benchmarks.help` explains their fields.
        methods: search methods: names of vlprm.search.METHODS, or paths of modules with a METHOD.
        search: settings shared by all search methods.
        reward_model: model that scores steps, if a method needs one.
        scorer: how the reward model scores.
        whole: score each candidate of a pool also as a single step; needs an in-process reward model.
        critic: reward model trained to write critiques, if a method needs one.
        unit: problems solved concurrently; with an in-process policy, also recorded together.
        shard: part of the problems to run, such as 0/4 for the first of four.
        ray: address of a Ray cluster that runs the work, or auto for the local one; empty for this process.
        workers: number of Ray actors, each with its own in-process models and its own unit of problems.
        pool: run folder of eval.run whose candidates are scored, so that nothing is sampled; the first search.n of each
            problem.
        checksum: checksum of the pool, as eval.compare prints it; another pool is refused. Empty for any.
    """

    run: Path
    policy: ModelConfig
    benchmarks: tuple[ProblemSetConfig, ...]
    methods: tuple[str, ...] = ("best_of_n",)
    search: SearchConfig = SearchConfig()
    reward_model: ModelConfig | None = None
    scorer: ScorerConfig = ScorerConfig()
    whole: bool = False
    critic: ModelConfig | None = None
    unit: PositiveInt = 32
    shard: str = "0/1"
    ray: str = ""
    workers: PositiveInt = 1
    pool: Path | None = None
    checksum: str = ""


@dataclass(frozen=True)
class SolveConfig:
    """Solve one problem.

    Args:
        image: image files, in the order in which the question mentions them.
        question: question about the images.
        run: folder to write; by default one per question and settings, below runs/solve.
        policy: model that writes solutions.
        reward_model: model that scores steps, if the method needs one; scores of several models are averaged.
        scorer: how the reward model scores.
        critic: reward model trained to write critiques, if the method needs one.
        method: search method: a name of vlprm.search.METHODS, or the path of a module with a METHOD.
        search: settings of the search method.
        answer_type: type of the answer, which decides how answers are compared.
        choices: texts of the answer options of a multiple-choice question.
        answer: correct answer, if known; each candidate is then marked right or wrong.
    """

    image: tuple[Path, ...]
    question: str
    run: Path | None = None
    policy: ModelConfig = ModelConfig("builtin/policy")
    reward_model: tuple[ModelConfig, ...] = ()
    scorer: ScorerConfig = ScorerConfig()
    critic: ModelConfig | None = None
    method: str = "best_of_n"
    search: SearchConfig = SearchConfig()
    answer_type: AnswerType = "word"
    choices: tuple[str, ...] = ()
    answer: str | None = None


@dataclass(frozen=True)
class FaithfulnessConfig:
    """Measure whether zooms are used.

    Args:
        run: folder to write.
        policy: model that writes solutions.
        tasks: task names or module paths; the families must have true regions, such as fine_print.
        split: split of the tasks.
        problems: number of problems, taken from the tasks in turn.
        n: solutions per problem.
        rollouts: rollouts from a solution's last zoom, for each crop shown there.
        temperature: sampling temperature of the policy.
        max_tokens: maximum number of tokens of one turn of the policy.
        seed: random seed of every sample.
    """

    run: Path
    policy: ModelConfig = ModelConfig("builtin/policy")
    tasks: tuple[str, ...] = ("fine_print",)
    split: str = "test"
    problems: PositiveInt = 60
    n: PositiveInt = 4
    rollouts: PositiveInt = 2
    temperature: NonNegativeFloat = 1.0
    max_tokens: PositiveInt = 1024
    seed: int = 0
