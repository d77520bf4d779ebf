"""Measure what the terms of a config need about a round's rollouts: scores, ground truth, values by rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from train.policy import zoom_credit
from train.policy.advantages import Group, GroupNumbers, StepNumbers
from train.policy.grpo_config import GrpoConfig, ZoomCredit
from train.policy.rewards import Evidence, advantages_of, rewards_of
from train.policy.rounds import Rated, Rollouts, StoredNumbers, group, outcome_of, without_alone
from train.policy.trajectories import Trajectory
from vlprm.errors import ProblemError
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import Checkpoint
from vlprm.policy import Policy, Request, Turn, all_answers
from vlprm.policy.rollout import rollouts
from vlprm.schema import Problem, Step
from vlprm.scoring import Scorer
from vlprm.tasks import Tasks, known_regions


@dataclass(frozen=True)
class Judges:
    """What measures a round: the policy itself, the reward model (if any), the tasks that know the truth, and the
    policy in training, for likelihoods; for a critic, the policy that goes on from its corrections (if any)."""

    engine: Policy
    scorer: Scorer | None
    tasks: Tasks
    inputs: InputBuilder
    config: GrpoConfig
    checkpoint: Checkpoint | None = None
    refiner: Policy | None = None

    def needs(self, reward: str, by: str) -> bool:
        """Whether a term pays this reward by this credit."""
        return any(term.reward == reward and term.by == by for term in self.config.terms)

    async def scored(self, problem: Problem, solutions: Sequence[tuple[Step, ...]]) -> GroupNumbers | None:
        """The reward model's scores of steps; None if there is none, or if it refused the problem."""
        if self.scorer is None:
            return None
        try:
            found = (await self.scorer.score(problem, solutions)).steps
        except ProblemError:
            return None
        scores = [[None if one is None else one.correct for one in of] for of in found]
        return [of or None for of in scores]

    @property
    def needs_counts(self) -> bool:
        """Whether a term needs values by rollouts."""
        return any(term.value == "counts" for term in self.config.terms)


async def rate(sampled: Rollouts, problems: Sequence[Problem], judges: Judges) -> tuple[Rollouts, int]:
    """The round with rewards and advantages, and the number of problems that the reward model refused."""
    chosen = [without_alone(paths) for paths in sampled]
    found = await all_answers(_rate(p, paths, judges) for p, paths in zip(problems, chosen, strict=True))
    return [paths for paths, _ in found], sum(was_refused for _, was_refused in found)


async def _rate(problem: Problem, paths: Sequence[Rated], judges: Judges) -> tuple[list[Rated], bool]:
    kept = [one for one in paths if not one.excluded]
    if not kept:
        return list(paths), False
    evidence, refused = await evidence_of(problem, kept, judges)
    rewards = [rewards_of(term, evidence) for term in judges.config.terms]
    found = advantages_of(judges.config, evidence, rewards)
    rated = iter(
        replace(
            one,
            rewards=tuple(None if of[i] is None else tuple(of[i] or ()) for of in rewards),
            scores=_tuple(evidence.scores[i]),
            truth=_tuple(evidence.truth[i]),
            advantages=tuple(found[i]),
        )
        for i, one in enumerate(kept)
    )
    return [one if one.excluded else next(rated) for one in paths], refused


async def evidence_of(problem: Problem, kept: Sequence[Rated], judges: Judges) -> tuple[Evidence, bool]:
    """What the config's terms need to know about the paths of a problem; whether the reward model refused it."""
    of_group = group(kept, problem, judges.inputs)
    paths = tuple(one.trajectory for one in kept)
    scores = await judges.scored(problem, [path.steps for path in paths])
    nothing: GroupNumbers = [None] * len(paths)
    zooms = await _zoom_credits(problem, paths, of_group, scores, judges)
    truth = truth_of([problem] * len(paths), [path.steps for path in paths], judges.tasks)
    evidence = Evidence(
        paths, of_group, scores or nothing, truth, zooms,
        await _counts(problem, kept, of_group, judges) if judges.needs_counts else nothing,
        known_regions(problem, judges.tasks), tuple(one.worth for one in kept),
    )  # fmt: skip
    return evidence, judges.scorer is not None and scores is None


async def _zoom_credits(
    problem: Problem, paths: Sequence[Trajectory], of_group: Group, scores: GroupNumbers | None, judges: Judges
) -> dict[ZoomCredit, GroupNumbers]:
    """What the crops of zooms are worth, by each measure that a term pays."""
    config = judges.config.rollouts
    found: dict[ZoomCredit, GroupNumbers] = {}
    if judges.needs("zoom", "value"):

        async def value_after(path: Trajectory, steps: tuple[Step, ...], key: str) -> float | None:
            return await _value(problem, path, steps, key, judges)

        found["value"] = await zoom_credit.by_value(paths, of_group, value_after, config.zoom_budget)
    if scores and judges.needs("zoom", "prm"):
        found["prm"] = await zoom_credit.by_scores(problem, paths, of_group, scores, judges.scored)
    if judges.needs("zoom", "likelihood"):
        assert judges.checkpoint is not None
        found["likelihood"] = await zoom_credit.by_likelihood(
            problem, paths, of_group, judges.checkpoint, config.temperature
        )
    return found


def _tuple(numbers: StepNumbers | None) -> StoredNumbers | None:
    return None if numbers is None else tuple(numbers)


def truth_of(problems: Sequence[Problem], solutions: Sequence[Sequence[Step]], tasks: Tasks) -> GroupNumbers:
    """1 or 0 per step of each problem's solution, as far as the task knows."""
    found: list[list[float | None] | None] = []
    for problem, steps in zip(problems, solutions, strict=True):
        family = tasks.get(problem.task)
        verdicts = family.verdicts(problem, steps) if family and steps else []
        found.append([None if v is None else float(v.correct) for v in verdicts] or None)
    return found


def every_step_right(outcome: float | None, truth: Sequence[float | None] | None) -> bool | None:
    """Whether a solution has a right answer and only right steps; a step that the task cannot read is not right. None
    without an outcome, and where nobody knows the truth."""
    if outcome is None or not truth:
        return None
    return outcome == 1 and all(right == 1 for right in truth)


async def _counts(problem: Problem, kept: Sequence[Rated], of_group: Group, judges: Judges) -> GroupNumbers:
    """The values of s_0 .. s_{K-1} of each path: the share of right rollouts from the state. At the prompt these are
    the group's own solutions."""
    known = [one.outcome for one in kept if one.outcome is not None]
    values: dict[int, float | None] = {-1: fmean(known) if known else None}
    places = {
        state: (i, k) for i, nodes in reversed(list(enumerate(of_group.states))) for k, state in enumerate(nodes[:-1])
    }
    states = list(places)
    found = await all_answers(
        _value(problem, kept[i].trajectory, kept[i].trajectory.steps[: k + 1], f"state/{i}.{k}", judges)
        for i, k in (places[state] for state in states)
    )
    values |= dict(zip(states, found, strict=True))
    return [[values[state] for state in (-1, *nodes[:-1])] for nodes in of_group.states]


async def _value(problem: Problem, path: Trajectory, steps: tuple[Step, ...], key: str, judges: Judges) -> float | None:
    """The share of right rollouts from a prefix of a path; None without a result."""
    config = judges.config
    request = Request(
        problem, steps, config.rollouts.per_state, f"round {path.version}/{problem.id}/{key}", config.seed,
        temperature=config.rollouts.temperature, max_tokens=config.rollouts.max_tokens,
        sampled=turns_before(path, len(steps)),
    )  # fmt: skip
    found = await rollouts(judges.engine, request)
    outcomes = [outcome_of(problem, one.answer, one.stop, config.exclude) for one in found]
    known = [outcome for outcome in outcomes if outcome is not None]
    return fmean(known) if known else None


def turns_before(path: Trajectory, steps: int) -> tuple[Turn, ...]:
    """The turns in which the first steps of a path were sampled; the last one may end within a turn."""
    turns: list[Turn] = []
    for turn in path.turns:
        taken = min(turn.steps, steps)
        if taken <= 0:
            break
        turns.append(Turn(taken, turn.ids))
        steps -= taken
    return tuple(turns)
