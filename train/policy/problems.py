"""The problems that a policy in training solves, and how its solutions are sampled and validated."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from train.policy import processes
from train.policy.grpo_config import GrpoConfig
from train.policy.measuring import Judges, every_step_right, truth_of
from train.policy.rounds import Rollouts, in_epochs, outcome_of, sample
from vlprm.data.problem_file import ProblemFile
from vlprm.policy import Request, all_answers
from vlprm.policy.rollout import rollouts
from vlprm.schema import Problem
from vlprm.tasks import load_tasks, problem_by_id
from vlprm.tasks.synthetic import item_ids

GATE = "gate it with the outcome, or train the reward model again on this run's rounds"


class ProblemSource:
    """The problems of a run. Drawn tasks go on without end; a file is read in an order of its own in each epoch."""

    def __init__(self, config: GrpoConfig) -> None:
        self.advice = GATE
        self.config = config
        self.file = None if config.problem_file is None else ProblemFile(config.problem_file)
        self.tasks = {} if self.file else load_tasks(config.tasks)

    def ids(self, round_number: int) -> list[str]:
        """The ids of a round's problems."""
        size = self.config.rollouts.problems
        start = round_number * size
        if self.file is None:
            families = list(self.tasks.values())
            ids = item_ids(families, self.config.split, start + size, self.config.first)
            return ids[start:]
        return in_epochs(self.file.ids, start, size, self.config.seed)

    def validation(self) -> list[Problem]:
        """The problems of the validation."""
        wanted = self.config.validation
        if not wanted.problems:
            return []
        if wanted.problem_file is not None:
            file = ProblemFile(wanted.problem_file)
            return [file.problem(name) for name in file.ids[: wanted.problems]]
        ids = item_ids(list(self.tasks.values()), "validation", wanted.problems)
        return [problem_by_id(name, self.tasks) for name in ids]

    def problem(self, problem_id: str) -> Problem:
        """The problem with this id. ProblemError if it cannot be used."""
        return self.file.problem(problem_id) if self.file else problem_by_id(problem_id, self.tasks)

    async def sample(self, problems: Sequence[Problem], judges: Judges, version: int) -> Rollouts:
        """The rollouts of a round by policy `version`, with their outcomes."""
        return await sample(judges.engine, problems, self.config, judges.inputs, version, judges.scored)

    def refuse_useless(self, known: Rollouts, round_number: int) -> None:
        """Nothing to refuse: advantages decide what is learnt."""

    async def validate(self, problems: Sequence[Problem], judges: Judges) -> dict[str, float]:
        """Shares of the problems with a result that are right, and right with every step right where the tasks know the
        truth; steps and zooms per solution."""
        if not problems:
            return {}
        config = self.config
        own = processes.share(problems)
        asked = [
            Request(
                problem, (), 1, f"validation/{problem.id}", config.seed,
                temperature=config.rollouts.temperature, max_tokens=config.rollouts.max_tokens,
            )
            for problem in own
        ]  # fmt: skip
        solved = [solution for (solution,) in await all_answers(rollouts(judges.engine, request) for request in asked)]
        found = processes.of_all(solved)
        outcomes = [
            outcome_of(problem, one.answer, one.stop, config.exclude)
            for problem, one in zip(problems, found, strict=True)
        ]
        truths = truth_of(problems, [one.steps for one in found], judges.tasks)
        whole = [every_step_right(*of) for of in zip(outcomes, truths, strict=True)]
        known = [(right, one.steps) for right, one in zip(outcomes, found, strict=True) if right is not None]
        measures = {
            "right": [right for right, _ in known],
            "all_steps_right": [float(value) for value in whole if value is not None],
            "zooms": [float(sum(step.region is not None for step in steps)) for _, steps in known],
            "steps": [float(len(steps)) for _, steps in known],
        }
        shares = {f"validation_{name}": fmean(values) for name, values in measures.items() if values}
        return {"validation_problems": len(known), **shares}
