"""The advantage of every step of a group of paths: a weighted sum of terms, each with its own rewards, values and
lambda.

Path i has steps k = 0..K-1 between the states s_0 (the prompt) .. s_K (the end). A term with step rewards r and state
values V gives

    A_k = sum over j >= k of lambda^(j - k) (r_j + V(s_{j+1}) - V(s_j)),   V(s_K) = 0,

the same for all tokens of step k. An outcome is a reward on the last step. Published methods are settings of this
formula; tests/train/test_advantages.py writes out each method's own formula beside its settings.

None is *no result* (a server failed, the reward model refused the problem, the truth is unknown), never 0. It leaves
means, deviations and weights, and an advantage that would need it is None. Pure functions on lists.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from vlprm.schema import Problem, Step

StepNumbers = Sequence[float | None]  # a number for each step of a path, or for each state before the end
GroupNumbers = Sequence[StepNumbers | None]  # for each path of a group; None: no result for the whole path
# A reward model's scores of the steps of a problem's solutions; None: no result.
ScoreSteps = Callable[[Problem, Sequence[tuple[Step, ...]]], Awaitable[GroupNumbers | None]]
Advantages = list[list[float | None]]
Value = Literal["none", "group", "leaves", "counts", "prm"]
Normaliser = Literal["none", "group_std", "step_std", "reward_std", "leave_one_out", "siblings", "sqrt_leaves"]
Only = Literal["all", "right", "level"]
MEASURED: frozenset[Value] = frozenset({"counts", "prm"})  # values that are measured outside, not taken from the paths
EPSILON = 1e-4  # added to deviations, as in TRL and R1-V


@dataclass(frozen=True)
class Group:
    """The paths of one problem. `states[i][k]` is the state after step k of path i; paths that share a prefix have
    equal states there. `outcomes[i]` is 1 (right), 0 (wrong) or None."""

    states: tuple[tuple[int, ...], ...]
    outcomes: tuple[float | None, ...]

    @property
    def is_level(self) -> bool:
        """Whether the outcomes tell no path from another."""
        return len({outcome for outcome in self.outcomes if outcome is not None}) < 2


@dataclass(frozen=True)
class Estimator:
    """How a term turns rewards into advantages.

    `value`: none (0); group (the mean return of the group); leaves (the mean return to go of the paths through the
    state); counts (rollouts from the state) and prm (the score of the last step) are measured outside.
    `normalise`: divide by the deviation of the group's returns (group_std); standardise over all steps of the group
    (step_std); standardise the rewards before they are summed (reward_std); take the baseline from the other paths
    (leave_one_out), or from the rewarded steps at the same state (siblings); divide by the square root of the number
    of paths through the state (sqrt_leaves).
    `only`: all paths, right paths, or groups whose outcomes are level.
    """

    value: Value = "group"
    lam: float = 1.0
    normalise: Normaliser = "none"
    only: Only = "all"


def advantages(estimator: Estimator, rewards: GroupNumbers, group: Group, measured: GroupNumbers = ()) -> Advantages:
    """The advantages of one term. `measured` has, for counts and prm, the values of s_0 .. s_{K-1} of each path."""
    paid = _selected(estimator.only, rewards, group)
    if estimator.normalise == "reward_std":
        paid = _standardised(paid)
    if estimator.normalise == "leave_one_out" and estimator.value == "none":
        paid = _less_others(paid)
    if estimator.normalise == "siblings":
        paid = _less_siblings(paid, group)
    values = _values(estimator, paid, group, measured)
    found: Advantages = [
        [None] * len(nodes) if r is None or v is None else _of_path(r, v, estimator.lam)
        for r, v, nodes in zip(paid, values, group.states, strict=True)
    ]
    return _normalised(estimator.normalise, found, paid, group)


def weighted_sum(terms: Sequence[tuple[float, Advantages]]) -> Advantages:
    """The sum of the terms by weight. A term without a result leaves the sum; a step that no term knows is None."""
    summed = []
    for of_path in zip(*(found for _, found in terms), strict=True):
        known = [
            [weight * a for (weight, _), a in zip(terms, of_step, strict=True) if a is not None]
            for of_step in zip(*of_path, strict=True)
        ]
        summed.append([sum(parts) if parts else None for parts in known])
    return summed


def modulated(found: Advantages, scores: GroupNumbers, alpha: float, below: float) -> Advantages:
    """A - alpha |A| on the steps that a reward model scores below a threshold (Perceval, arXiv 2604.24583)."""
    return [
        [
            a - alpha * abs(a) if a is not None and score is not None and score < below else a
            for a, score in zip(path, scores_of or [None] * len(path), strict=True)
        ]
        for path, scores_of in zip(found, scores, strict=True)
    ]


def returns(rewards: GroupNumbers) -> list[float | None]:
    """The sum of each path's rewards; None if one of them is unknown."""
    return [None if path is None or (known := _known(path)) is None else math.fsum(known) for path in rewards]


def prm_values(scores: GroupNumbers) -> list[list[float | None] | None]:
    """The values of s_0 .. s_{K-1} by a reward model: its score of the step before; at the prompt, the mean score of
    the group's first steps."""
    first = [path[0] for path in scores if path and path[0] is not None]
    start = fmean(first) if first else None
    return [None if path is None else [start, *path[:-1]][: len(path)] for path in scores]


def _selected(only: Only, rewards: GroupNumbers, group: Group) -> GroupNumbers:
    if only == "level" and not group.is_level:
        return [None] * len(rewards)
    if only == "right":
        return [path if outcome == 1 else None for path, outcome in zip(rewards, group.outcomes, strict=True)]
    return rewards


def _values(estimator: Estimator, rewards: GroupNumbers, group: Group, measured: GroupNumbers) -> GroupNumbers:
    if estimator.value in MEASURED:
        return measured
    if estimator.value == "none":
        return [[0.0] * len(nodes) for nodes in group.states]
    if estimator.value == "leaves":
        return _leaf_means(rewards, group)
    sums = returns(rewards)
    baselines = _means_of_others(sums) if estimator.normalise == "leave_one_out" else [_mean(sums)] * len(sums)
    return [[baseline] * len(nodes) for baseline, nodes in zip(baselines, group.states, strict=True)]


def _leaf_means(rewards: GroupNumbers, group: Group) -> GroupNumbers:
    """At each state, the mean return to go of the paths through it."""
    to_go: dict[int, list[float]] = defaultdict(list)
    for path, nodes in zip(rewards, group.states, strict=True):
        known = None if path is None else _known(path)
        for k in range(len(nodes)) if known is not None else ():
            to_go[nodes[k - 1] if k else -1].append(math.fsum(known[k:]))  # type: ignore[index]
    means = {state: fmean(found) for state, found in to_go.items()}
    return [[means.get(state) for state in (-1, *nodes[:-1])][: len(nodes)] for nodes in group.states]


def _of_path(rewards: StepNumbers, values: StepNumbers, lam: float) -> list[float | None]:
    after = [*values[1:], 0.0]
    found: list[float | None] = []
    for reward, here, then in reversed(list(zip(rewards, values, after, strict=True))):
        known = reward is not None and here is not None and then is not None
        delta = reward + then - here if known else None  # type: ignore[operator]
        if found and lam and delta is not None:
            delta = None if found[-1] is None else delta + lam * found[-1]
        found.append(delta)
    return found[::-1]


def _normalised(how: Normaliser, found: Advantages, rewards: GroupNumbers, group: Group) -> Advantages:
    if how == "group_std":
        deviation = _deviation(list(_flat([returns(rewards)]))) + EPSILON
        return [[None if a is None else a / deviation for a in path] for path in found]
    if how == "step_std":
        return [list(path or ()) for path in _standardised(found)]
    if how == "sqrt_leaves":
        through = Counter(state for nodes, path in zip(group.states, rewards, strict=True) if path for state in nodes)
        return [
            [None if a is None else a / math.sqrt(through[state]) for a, state in zip(path, nodes, strict=True)]
            for path, nodes in zip(found, group.states, strict=True)
        ]
    return found


def _standardised(paths: GroupNumbers) -> list[list[float | None] | None]:
    """All numbers of the group less their mean, over their deviation."""
    known = list(_flat(paths))
    mean, deviation = fmean(known) if known else 0.0, _deviation(known) + EPSILON
    return [None if path is None else [None if x is None else (x - mean) / deviation for x in path] for path in paths]


def _less_others(rewards: GroupNumbers) -> GroupNumbers:
    """Each step reward less the mean step reward of the other paths (PURE, arXiv 2504.15275)."""
    per_step = [None if path is None or not (known := _known(path)) else fmean(known) for path in rewards]
    return [
        None if path is None or mean is None else [None if r is None else r - mean for r in path]
        for path, mean in zip(rewards, _means_of_others(per_step), strict=True)
    ]


def _less_siblings(rewards: GroupNumbers, group: Group) -> GroupNumbers:
    """Each step reward less the mean of the distinct steps at its state that have one; unchanged without others."""
    at: dict[int, dict[int, float]] = defaultdict(dict)
    parents = [(-1, *nodes[:-1]) for nodes in group.states]
    for path, nodes, before in zip(rewards, group.states, parents, strict=True):
        for reward, state, parent in zip(path or (), nodes, before, strict=False):
            if reward is not None:
                at[parent][state] = reward
    return [
        None
        if path is None
        else [
            r if r is None or len(at[parent]) < 2 else r - fmean(at[parent].values())
            for r, parent in zip(path, before, strict=True)
        ]
        for path, before in zip(rewards, parents, strict=True)
    ]


def _means_of_others(numbers: StepNumbers) -> list[float | None]:
    return [_mean([other for j, other in enumerate(numbers) if j != i]) for i in range(len(numbers))]


def _mean(numbers: StepNumbers) -> float | None:
    known = [x for x in numbers if x is not None]
    return fmean(known) if known else None


def _deviation(known: Sequence[float]) -> float:
    return stdev(known) if len(known) > 1 else 0.0


def _known(path: StepNumbers) -> list[float] | None:
    known = [x for x in path if x is not None]
    return known if len(known) == len(path) else None


def _flat(paths: GroupNumbers) -> Iterator[float]:
    return (x for path in paths if path is not None for x in path if x is not None)
