"""What the commands that solve problems are asked for: `eval.run`, `eval.solve`, `eval.faithfulness`."""

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
        name: a benchmark, a drawn family, or the path of a family's module; with `problem_file`, a name of your own.
        data: the benchmark's folder, as in its public repository; without one, it is the Hub's.
        subset: which of the benchmark's items.
        style: how they are asked: steps, ours, or official, the authors' own prompt.
        split: of a drawn family.
        problems: how many, from the first on (0: all; a drawn family has no end).
        problem_file: problems of your own, as vlprm/data/problem_file.py describes them.
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
        policy: the model that writes solutions.
        benchmarks: what is asked; `--benchmarks.help` explains the fields of one.
        methods: names of vlprm.search.METHODS, or paths of modules with a METHOD.
        search: what they share.
        reward_model: the model that rewards steps, where a method needs one.
        scorer: what is asked of the reward model.
        whole: score each candidate of a pool once more, as one step; with the reward model in this process.
        critic: a reward model that has learnt critiques, where a method needs one.
        unit: problems that are solved side by side; with the policy in process, recorded together.
        shard: which part of the problems, such as 0/4.
        ray: address of a Ray cluster that does the work, `auto` for the one of this machine; none: this process does.
        workers: actors on the Ray cluster, each with the models that are not served, and a unit.
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


@dataclass(frozen=True)
class SolveConfig:
    """Solve one problem.

    Args:
        image: file of the image; of several, in the order in which the question speaks of them.
        question: what is asked.
        run: folder to write.
        policy: the model that writes solutions.
        reward_model: the model that rewards steps, where the method needs one; of several, the mean is taken.
        scorer: what is asked of it.
        critic: a reward model that has learnt critiques, where the method needs one.
        method: one of vlprm.search.METHODS, or the path of a module with a METHOD.
        search: how many candidates, and how they are chosen.
        answer_type: integer, word, choice, float, text, list or expression.
        choices: the texts of the options, where there are any.
        answer: the right answer, where you know it; the candidates are marked by it.
    """

    image: tuple[Path, ...]
    question: str
    run: Path = Path("runs/solve")
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
    """Measure zooms.

    Args:
        run: folder to write.
        policy: the model that writes solutions.
        tasks: task names or module paths; of families that know the regions that are asked about.
        split: split of the tasks.
        problems: how many, over all tasks, taking turns.
        n: solutions a problem.
        rollouts: from after a solution's last zoom, for each thing that is shown there.
        temperature: of the sampling.
        max_tokens: of one turn.
        seed: decides every sample.
    """

    run: Path
    policy: ModelConfig = ModelConfig("builtin/policy")
    tasks: tuple[str, ...] = ("fine_print",)
    split: str = "test"
    problems: PositiveInt = 60
    n: PositiveInt = 4
    rollouts: PositiveInt = 2
    temperature: NonNegativeFloat = 1.0
    max_tokens: PositiveInt = 160
    seed: int = 0
