"""Config of `train.grpo`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnitInterval,
    PositiveFloat,
    PositiveInt,
)

from train.policy.advantages import Normaliser, Only, Value
from train.policy.config import PolicyLossConfig
from train.policy.shaping import Paid
from vlprm.model.checkpoint_config import Part
from vlprm.serving.config import ModelConfig
from vlprm.tasks import TASKS

Reward = Literal["outcome", "format", "zoom", "prm", "truth", "critic"]
ZoomCredit = Literal["right", "rare", "calls", "truth", "prm", "value", "likelihood"]

At = Literal["none", "uniform", "entropy", "drop", "zoom"]


@dataclass(frozen=True)
class ForksConfig:
    """Where rollouts fork.

    Args:
        at: the step that is sampled again: any (uniform), the one whose ids were least likely (entropy), the one at
            which the reward model's score falls most (drop), a zoom (zoom), or none (none): all start at the prompt.
        per_node: solutions that go on from a fork, the first one included.
    """

    at: At = "none"
    per_node: PositiveInt = 4


@dataclass(frozen=True)
class GateConfig:
    """Pay less for a right solution whose reward model's scores fall sharply (PS-GRPO).

    Args:
        drop: relative fall of the score from one step to the next at which the outcome is gated; 0 turns the gate off.
        keep: the outcome that a gated right solution is paid.
    """

    drop: ClosedUnitInterval = 0.0
    keep: ClosedUnitInterval = 0.5


@dataclass(frozen=True)
class TermConfig:
    """One term of the advantage (docs/policy.md has the formula).

    Args:
        reward: what is paid: the outcome, the format (all steps tagged, the last an answer; a critique that can be
            read), zooms, the scores of the reward model (prm), the ground truth of each step (truth), which only drawn
            tasks have, or what a critique is worth (critic).
        paid: prm: how scores become rewards: progress, softmin, signed, ranks, or plainly step, min or mean, which a
            policy learns to exploit.
        by: zoom: what is credited: a valid zoom in a right solution (right), zooms where few solutions zoom (rare), a
            cost per further zoom (calls), the region's ground truth (truth), or what the crop changes against a blank:
            the reward model's score of the next step (prm), the share of right rollouts (value), or the probability
            with which the policy writes the next step (likelihood).
        gate: outcome: a gate by the reward model.
        value: value of a state: none, the group's mean return (group), the mean of the solutions through it (leaves),
            rollouts from it (counts), or the reward model's score (prm).
        lam: lambda of the generalised advantage estimate: 1 credits a step with all that follows, 0 with its own change
            of value.
        normalise: none; group_std divides by the deviation of the group's returns; step_std standardises over the
            group's steps; reward_std standardises rewards before summing; leave_one_out takes the baseline from the
            other solutions; siblings takes it from the steps at the same state; sqrt_leaves divides by the root of the
            number of solutions through the state.
        only: use all solutions, right ones, or groups in which all are right or all wrong (level).
        weight: weight of the term.
    """

    reward: Reward = "outcome"
    paid: Paid = "progress"
    by: ZoomCredit = "right"
    gate: GateConfig = GateConfig()
    value: Value = "group"
    lam: ClosedUnitInterval = 1.0
    normalise: Normaliser = "none"
    only: Only = "all"
    weight: float = 1.0


@dataclass(frozen=True)
class RolloutsConfig:
    """Sampling of a round.

    Args:
        problems: problems per round; for a critic, steps to criticise.
        each: solutions per problem, or critiques per step.
        temperature: sampling temperature.
        max_tokens: maximum tokens per turn of a solution; a critique has the limit of the critic's template.
        per_state: rollouts from a state, for values by counts and for zooms by value, and from a critic's correction.
        zoom_budget: zooms of a problem that are credited by value in a round, each by 2 x `per_state` rollouts.
        forks: which solutions share a prefix.
        max_zooms: maximum zooms per solution; default: the checkpoint's.
        on_refusal: stop: a refused zoom ends its solution; tell: the policy gets a message; default: the checkpoint's.
    """

    problems: PositiveInt = 16
    each: PositiveInt = 8
    temperature: PositiveFloat = 1.0
    max_tokens: PositiveInt = 200
    per_state: PositiveInt = 4
    zoom_budget: PositiveInt = 8
    forks: ForksConfig = ForksConfig()
    max_zooms: NonNegativeInt | None = None
    on_refusal: Literal["stop", "tell"] | None = None


@dataclass(frozen=True)
class ExcludeConfig:
    """Solutions that are not trained on, nor counted in the statistics of their group. Failed calls never are.

    Args:
        over_turn: solutions that ask for more zooms than allowed; otherwise they are wrong.
        over_length: solutions that a token limit cut off; otherwise they are wrong.
    """

    over_turn: bool = False
    over_length: bool = False


@dataclass(frozen=True)
class ModulateConfig:
    """Lower the advantage of steps that the reward model finds wrong (Perceval): A - alpha |A|.

    Args:
        alpha: share of the advantage that is taken away; 0 changes nothing.
        below: a step is wrong if its score is below this value.
    """

    alpha: NonNegativeFloat = 0.0
    below: OpenUnitInterval = 0.5


@dataclass(frozen=True)
class ValidationConfig:
    """Validation during the run, and the stop of a run that exploits its reward.

    Args:
        problems: problems of the split `validation`, or of `problem_file`, one solution each; for a critic, at least
            this many of its rows, held out with their problems, one critique each. 0 for no validation.
        every: rounds between two validations; the policy is also measured before the first round.
        problem_file: file with your own problems; required if the run has a problem file.
        fall: stop the run if the share of right solutions has fallen by this much since the best validation while the
            reward has risen; it must also exceed two standard errors.
    """

    problems: NonNegativeInt = 64
    every: PositiveInt = 5
    problem_file: Path | None = None
    fall: OpenUnitInterval = 0.05


@dataclass(frozen=True)
class CritiquesConfig:
    """What a critic criticises, and what its critiques are paid for.

    Args:
        rows: prompts.parquet of train.critic_rows --rows prompts.
        judgement: weight of a right verdict.
        refinement: weight of the share of right solutions that go on from the correction of a wrong step.
        policy: refinement: the policy that goes on.
    """

    rows: Path
    judgement: NonNegativeFloat = 1.0
    refinement: NonNegativeFloat = 0.0
    policy: ModelConfig | None = None


@dataclass(frozen=True)
class GrpoConfig:
    """Improve a policy by its own rollouts, with a reward for each step; or a critic by its own critiques.

    Args:
        run: run folder to write; `policy/` in it is the trained checkpoint.
        policy: the policy to start from, and where it samples: in this process, or on servers that take new weights.
        prm: the reward model of the terms that need one.
        tasks: task names or module paths.
        split: split of the tasks.
        first: index of the first problem of each task.
        problem_file: file with your own problems, used in place of the tasks.
        critiques: train a critic: `policy` criticises these steps, used in place of the tasks.
        rounds: number of rounds; each samples, rewards and learns.
        rollouts: sampling of a round.
        terms: terms of the advantage, which is their weighted sum.
        modulate: lower the advantage of steps that the reward model finds wrong.
        exclude: solutions and groups that are left out.
        loss: the loss on the trees of a round.
        updates: optimizer steps per round.
        learning_rate: learning rate of AdamW, constant after the first step.
        freeze: parts of the model that are not trained: vision, projector, text.
        batch_tokens: maximum tokens per forward pass of training, padding included; a longer row is a batch of its own.
        checkpoint_every: rounds between two checkpoints of weights and optimizer.
        validation: validation during the run.
        dry_run: print rollouts, tokens and one solution with its advantages, and stop.
        seed: random seed of all samples.
    """

    run: Path
    policy: ModelConfig = ModelConfig("builtin/policy")
    prm: ModelConfig | None = None
    tasks: tuple[str, ...] = tuple(TASKS)
    split: str = "train"
    first: NonNegativeInt = 0
    problem_file: Path | None = None
    critiques: CritiquesConfig | None = None
    rounds: PositiveInt = 20
    rollouts: RolloutsConfig = RolloutsConfig()
    terms: tuple[TermConfig, ...] = (TermConfig(),)
    modulate: ModulateConfig = ModulateConfig()
    exclude: ExcludeConfig = ExcludeConfig()
    loss: PolicyLossConfig = PolicyLossConfig()
    updates: PositiveInt = 1
    learning_rate: PositiveFloat = 1e-6
    freeze: tuple[Part, ...] = ("vision",)
    batch_tokens: PositiveInt = 4096
    checkpoint_every: PositiveInt = 5
    validation: ValidationConfig = ValidationConfig()
    dry_run: bool = False
    seed: int = 0

    @property
    def models(self) -> list[ModelConfig]:
        """The models of the run."""
        refining = self.critiques.policy if self.critiques else None
        return [model for model in (self.policy, self.prm, refining) if model is not None]

    def with_models(self, change: Callable[[ModelConfig], ModelConfig]) -> GrpoConfig:
        """The config with each of its models changed."""
        critiques = self.critiques
        if critiques and critiques.policy:
            critiques = replace(critiques, policy=change(critiques.policy))
        return replace(self, policy=change(self.policy), prm=self.prm and change(self.prm), critiques=critiques)
