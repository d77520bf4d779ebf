"""The rewards of a group's steps, from what was measured about them.

A source is a function of `Evidence` and gives each path a number per step. None is *no result*, never 0: the reward
model refused the problem, the truth is unknown, a step is not a zoom.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from train.policy.advantages import (
    Advantages,
    Estimator,
    Group,
    GroupNumbers,
    StepNumbers,
    advantages,
    modulated,
    prm_values,
    weighted_sum,
)
from train.policy.grpo_config import GrpoConfig, Reward, TermConfig, ZoomCredit
from train.policy.rounds import steps_of
from train.policy.shaping import on_last, paid
from train.policy.trajectories import Trajectory
from vlprm.schema import Region
from vlprm.scoring.gate import gated
from vlprm.zoom.labels import label_zooms

RARE = 0.3  # share of zooming solutions below which zooms are paid, as in Pixel-Reasoner
MEASURED_CREDITS: frozenset[ZoomCredit] = frozenset({"value", "prm", "likelihood"})
CREDITS = {"correct": 1.0, "redundant": 0.0, "erroneous": -1.0}


@dataclass(frozen=True)
class Evidence:
    """What is known about the paths of a problem. Per path: its outcome, and per step the reward model's `scores`, the
    `truth` (1 or 0), what the crops of `zooms` are worth by each measure that was taken, and the values of the states
    before the end by rollouts (`counts`). `regions` are the true regions by name, where the task knows them. `worths`:
    the reward of each path that is a critique."""

    paths: tuple[Trajectory, ...]
    group: Group
    scores: GroupNumbers
    truth: GroupNumbers
    zooms: Mapping[ZoomCredit, GroupNumbers]
    counts: GroupNumbers
    regions: Mapping[str, Region]
    worths: Sequence[float | None]

    @property
    def outcomes(self) -> tuple[float | None, ...]:
        """The outcome of each path."""
        return self.group.outcomes


def rewards_of(term: TermConfig, evidence: Evidence) -> GroupNumbers:
    """The step rewards that a term pays."""
    return REWARDS[term.reward](term, evidence)


def advantages_of(config: GrpoConfig, evidence: Evidence, rewards: Sequence[GroupNumbers]) -> Advantages:
    """The advantages of a group: the weighted sum of the config's terms, whose rewards are given."""
    measured: dict[str, GroupNumbers] = {"counts": evidence.counts, "prm": prm_values(evidence.scores)}
    terms = [
        (
            term.weight,
            advantages(
                Estimator(term.value, term.lam, term.normalise, term.only),
                of_term,
                evidence.group,
                measured.get(term.value, ()),
            ),
        )
        for term, of_term in zip(config.terms, rewards, strict=True)
    ]
    found = weighted_sum(terms)
    if config.modulate.alpha:
        found = modulated(found, evidence.scores, config.modulate.alpha, config.modulate.below)
    return found


def _outcome(term: TermConfig, evidence: Evidence) -> GroupNumbers:
    gate = term.gate
    return [
        on_last(gated(outcome, scores, gate.drop, gate.keep) if gate.drop else outcome, steps_of(path))
        for outcome, scores, path in zip(evidence.outcomes, evidence.scores, evidence.paths, strict=True)
    ]


def _format(term: TermConfig, evidence: Evidence) -> GroupNumbers:
    return [on_last(float(is_formatted(path)), steps_of(path)) for path in evidence.paths]


def is_formatted(path: Trajectory) -> bool:
    """Whether each step has a tag and the last is an answer; of a critique, whether it can be read."""
    if path.about:
        return path.answer is not None
    kinds = [step.kind for step in path.steps]
    return kinds[-1:] == ["answer"] and "other" not in kinds


def _prm(term: TermConfig, evidence: Evidence) -> GroupNumbers:
    return paid(term.paid, evidence.scores, evidence.outcomes)


def _truth(term: TermConfig, evidence: Evidence) -> GroupNumbers:
    """1 for a right step, -1 for a wrong one."""
    return [
        None if path is None else [None if right is None else 2 * right - 1 for right in path]
        for path in evidence.truth
    ]


def _zoom(term: TermConfig, evidence: Evidence) -> GroupNumbers:
    if term.by in MEASURED_CREDITS:
        return evidence.zooms.get(term.by, [None] * len(evidence.paths))
    if term.by == "truth":
        return [_credits(path, evidence.regions) for path in evidence.paths]
    zooms = [sum(step.region is not None for step in path.steps) for path in evidence.paths]
    rate = sum(n > 0 for n in zooms) / max(len(zooms), 1)
    paying: dict[str, Callable[[int, float | None], float | None]] = {
        "right": lambda n, outcome: None if outcome is None else float(n > 0 and outcome == 1),
        "rare": lambda n, outcome: max(RARE - rate, 0) / (2 * rate) if n else 0.0,
        "calls": lambda n, outcome: -float(max(n - 1, 0)),
    }
    return [
        on_last(paying[term.by](n, outcome), steps_of(path))
        for n, outcome, path in zip(zooms, evidence.outcomes, evidence.paths, strict=True)
    ]


def _credits(path: Trajectory, regions: Mapping[str, Region]) -> StepNumbers:
    """The credit of each zoom by the true region; None for other steps, and where the region is unknown."""
    labels = label_zooms(path.steps, regions)
    found: list[float | None] = [None] * steps_of(path)
    for k, label in labels.items():
        found[k] = None if label.credit is None else CREDITS[label.credit]
    return found


def _critic(term: TermConfig, evidence: Evidence) -> GroupNumbers:
    return [on_last(worth, steps_of(path)) for worth, path in zip(evidence.worths, evidence.paths, strict=True)]


REWARDS: dict[Reward, Callable[[TermConfig, Evidence], GroupNumbers]] = {
    "outcome": _outcome,
    "format": _format,
    "zoom": _zoom,
    "prm": _prm,
    "truth": _truth,
    "critic": _critic,
}
