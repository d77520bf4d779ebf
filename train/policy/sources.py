"""What a run of `train.grpo` learns from: problems for a policy, or labelled steps for a critic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from train.policy.critiques import StepSource
from train.policy.grpo_config import GrpoConfig
from train.policy.measuring import Judges
from train.policy.problems import ProblemSource
from train.policy.rounds import Rollouts
from vlprm.schema import Problem
from vlprm.tasks import Tasks


class Source(Protocol):
    """The problems of each round and of the validation, and how the model in training is asked about them.

    tasks: the drawn tasks, which know the truth of each step.
    advice: what to do when the model exploits its reward.
    """

    tasks: Tasks
    advice: str

    def ids(self, round_number: int) -> list[str]:
        """The ids of a round's problems."""

    def problem(self, problem_id: str) -> Problem:
        """The problem with this id. ProblemError if it cannot be used."""

    def validation(self) -> list[Problem]:
        """The problems of the validation."""

    async def sample(self, problems: Sequence[Problem], judges: Judges, version: int) -> Rollouts:
        """The rollouts of a round by model `version`, with their outcomes."""

    def refuse_useless(self, known: Rollouts, round_number: int) -> None:
        """UserError if nothing can be learnt from any rollout of a round."""

    async def validate(self, problems: Sequence[Problem], judges: Judges) -> dict[str, float]:
        """The measures of the validation, by the names that they have in the run's metrics; none without problems."""


def source_of(config: GrpoConfig) -> Source:
    """The source of a config."""
    return ProblemSource(config) if config.critiques is None else StepSource(config, config.critiques)
