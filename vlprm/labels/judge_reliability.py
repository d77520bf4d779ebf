"""Estimate a judge's error rates without gold labels, and each step's posterior under them (the `bayes` rule).

A step is correct or has an error of some kind. An error is harmful (the answer is lost) or harmless (the answer is
still reached, such as a misread cell that nobody counts). Rollout counts only separate harmful errors from the rest;
the judge separates errors from correct steps, at rates that are unknown. Two sets of anchors give the rates (after
Dawid and Skene, 1979):

- *Sensitivity*. If no rollout succeeds after a step, though its parent's counts predict successes, the step has a
  harmful error, whatever the judge says. Sensitivity is how often the judge calls these steps wrong.
- *Specificity*. Where rollouts keep succeeding, a false alarm and a harmless error look alike, and an unconstrained
  estimate drifts towards a judge that is never wrong. But harmless errors are not equally common in all kinds of steps:
  the kind with the fewest alarms bounds the false alarm rate from above. So specificity is, if anything,
  underestimated.

Counts are of all rollouts from a step or through it. A search chooses where to make rollouts by what it has seen, which
does not matter to a likelihood.

Both use only steps with no judged error before them, because later steps may carry an earlier error on. The share of
steps that do is estimated from the alarms after an error, given the judge's rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from vlprm.schema import ERROR_KINDS, STEP_KINDS, StepKind, StepLabel, StepTree

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

VERDICTS = ("correct", *ERROR_KINDS)  # possible verdicts on a step
# Beta distribution (a, b) of the success rate of rollouts after a harmful error.
SPOILT = (0.3, 6.0)
STRENGTH = 10.0  # pseudo-rollouts that tie the value after a step without harmful error to its parent's value
SURELY_SPOILT = 0.05  # an anchor's counts are less likely than this without a harmful error
MIN_VALID, MIN_ANCHORS = 3, 10
ITERATIONS, RESAMPLES = 40, 100
# The judge's ideal verdict per state of a step: correct, three kinds of harmful errors, three of harmless ones.
SEEN = (0, 1, 2, 3, 1, 2, 3)
# Pseudo-counts of the states, and of the verdicts on correct steps and on errors of each kind. They equal a few steps,
# and matter only where data is scarce.
STATES_PRIOR = np.array([4, 1, 1, 0.2, 0.5, 0.25, 0.1])
CARRIED_PRIOR = (6, 8)  # after an error, 6 of 8 steps are wrong too
SAYS_PRIOR = np.array([[9, 0.4, 0.4, 0.2], [0.5, 3.5, 0.75, 0.25], [0.5, 0.75, 3.5, 0.25], [0.5, 0.5, 0.5, 3.5]])


@dataclass(frozen=True)
class TreeEvidence:
    """The evidence on a tree's N steps: labels (counts and verdicts), kinds, parents (-1: the prompt), and the counts
    of the prompt."""

    labels: Sequence[StepLabel]
    kinds: Sequence[StepKind]
    parents: Sequence[int]
    root: StepLabel

    @classmethod
    def of(cls, tree: StepTree) -> TreeEvidence:
        """The evidence stored in a tree."""
        nodes = tree.nodes
        return cls([n.label for n in nodes], [n.step.kind for n in nodes], [n.parent for n in nodes], tree.root)


@dataclass(frozen=True)
class JudgeReliability:
    """The estimated reliability of a judge and the estimated states of steps.

    `says`: rows of probabilities of VERDICTS, for a correct step and for an error of each kind. `states`: per kind of
    step, the shares of the seven states in the order of SEEN. `carried`: per kind of step, the share of wrong steps
    after a harmful and after a harmless error. `intervals`: 95% bootstrap intervals over trees of `specificity` and
    `sensitivity/KIND`, [0, 1] if there are too few anchors. `anchors`: number of steps behind each rate.
    """

    says: tuple[tuple[float, ...], ...] = tuple(tuple(row / row.sum()) for row in SAYS_PRIOR)
    states: dict[str, tuple[float, ...]] = field(
        default_factory=lambda: {kind: tuple(STATES_PRIOR / STATES_PRIOR.sum()) for kind in STEP_KINDS}
    )
    carried: dict[str, tuple[float, float]] = field(
        default_factory=lambda: dict.fromkeys(STEP_KINDS, (CARRIED_PRIOR[0] / CARRIED_PRIOR[1],) * 2)
    )
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    anchors: dict[str, int] = field(default_factory=dict)

    @property
    def rates(self) -> dict[str, float]:
        """Specificity (share of correct steps called correct), and sensitivity by kind (share of errors of the kind
        that are called wrong, with any error kind)."""
        missed = {kind: row[0] for kind, row in zip(VERDICTS, self.says, strict=True)}
        return {
            "specificity": missed["correct"],
            **{f"sensitivity/{kind}": 1 - missed[kind] for kind in ERROR_KINDS},
        }


def posterior_correct(evidence: TreeEvidence, quality: JudgeReliability) -> list[float | None]:
    """The probability that each step is correct, given its counts, its parent's counts and the judge's verdict; None
    without counts and verdict."""
    steps = _Steps.of([evidence])
    regimes = _weights_by_regime(steps, quality)
    known = (steps.valid > 0) | (steps.verdict >= 0)
    posteriors: list[float] = []
    before: list[Floats] = []  # P(no error up to this step), P(only harmless errors), P(a harmful error)
    for node, parent in enumerate(evidence.parents):
        prior = before[parent] if parent >= 0 else np.array([1.0, 0.0, 0.0])
        joint = prior[:, None] * regimes[:, node]
        joint /= joint.sum()
        posteriors.append(float(joint[:, 0].sum()))
        harmful = joint[:2, 1:4].sum()
        before.append(np.array([joint[0, 0], joint[1, 0] + joint[:2, 4:].sum(), joint[2].sum() + harmful]))
    return [value if k else None for value, k in zip(posteriors, known, strict=True)]


def _weights_by_regime(steps: _Steps, quality: JudgeReliability) -> Floats:
    """`_Steps.weights` given the history, shape (3, S, 7): no error; only harmless errors, which a step may carry on; a
    harmful error, after which counts are equally likely in all states."""
    table, says = np.array([quality.states[kind] for kind in STEP_KINDS]), np.array(quality.says)
    clean = table[steps.kind]
    carried, harmlessly = np.array([quality.carried[kind] for kind in STEP_KINDS])[steps.kind].T
    open_prior = (1 - harmlessly)[:, None] * clean
    open_prior[:, 4:] += harmlessly[:, None] * _shares(table[:, 4:])
    spoilt_prior = np.zeros_like(clean)
    spoilt_prior[:, 0], spoilt_prior[:, 1:4] = 1 - carried, carried[:, None] * _shares(table[:, 1:4])
    spoilt = np.exp(steps.log_counts()[:, 1:2]) * spoilt_prior * _said(steps.verdict, says)
    return np.stack([steps.weights(clean, says), steps.weights(open_prior, says), spoilt])


def _shares(table: Floats) -> Floats:
    shares: Floats = table.sum(axis=0) / table.sum()
    return shares


def _said(verdict: Ints, says: Floats) -> Floats:
    """The probability of each step's verdict in each state, shape (S, 7); 1 for a step without a verdict."""
    said: Floats = says[list(SEEN)][:, verdict].T
    said[verdict < 0] = 1.0
    return said


def estimate_reliability(trees: Sequence[TreeEvidence], seed: int = 0) -> JudgeReliability:
    """Estimate the judge's rates and the shares of states from the evidence of trees (some hundred)."""
    columns = [_Steps.of([tree]) for tree in trees]
    each = [steps.telling() for steps in columns]
    everything = _Steps.joined(each)
    if not len(everything.verdict):
        return JudgeReliability()
    quality = _estimated(everything)
    quality = replace(quality, carried=_carried(_Steps.joined([s.after_errors() for s in columns]), quality))
    rng = np.random.default_rng(seed)
    drawn = [
        _estimated(_Steps.joined([each[i] for i in rng.integers(len(each), size=len(each))])).rates
        for _ in range(RESAMPLES)
    ]
    intervals: dict[str, tuple[float, float]] = {}
    for name in quality.rates:
        low, high = np.percentile([rates[name] for rates in drawn], [2.5, 97.5])
        known = quality.anchors[name] >= MIN_ANCHORS
        intervals[name] = (float(low), float(high)) if known else (0.0, 1.0)  # only the prior
    return replace(quality, intervals=intervals)


@dataclass(frozen=True)
class _Steps:
    """Columns over S steps. `parent_correct` and `parent_valid` are the counts of the closest ancestor with counts, or
    of the prompt, because a search makes rollouts from some steps only. `verdict` indexes VERDICTS (-1: none). `clean`:
    the judge saw no error before the step. `inner`: the step has children."""

    correct: Ints
    valid: Ints
    parent_correct: Ints
    parent_valid: Ints
    kind: Ints
    verdict: Ints
    clean: NDArray[np.bool_]
    inner: NDArray[np.bool_]

    @staticmethod
    def of(trees: Sequence[TreeEvidence]) -> _Steps:
        rows = [row for tree in trees for row in _rows(tree)]
        columns = np.array(rows, dtype=np.int64).reshape(-1, 8).T
        return _Steps(*columns[:6], *(column.astype(bool) for column in columns[6:]))

    @staticmethod
    def joined(parts: Sequence[_Steps]) -> _Steps:
        return _Steps(*(np.concatenate([getattr(part, name) for part in parts]) for name in _Steps.__annotations__))

    def chosen(self, mask: NDArray[np.bool_]) -> _Steps:
        return _Steps(*(getattr(self, name)[mask] for name in _Steps.__annotations__))

    def telling(self) -> _Steps:
        return self.chosen((self.parent_correct > 0) & (self.verdict >= 0) & self.clean & self.inner)

    def after_errors(self) -> _Steps:
        return self.chosen((self.verdict >= 0) & ~self.clean & self.inner)

    def log_open(self) -> Floats:
        """Log-likelihood of the counts without a harmful error: the value is close to the parent's."""
        value = (self.parent_correct + 0.75) / (self.parent_valid + 1.25)
        return _log_beta_binomial(self.correct, self.valid, STRENGTH * value + 0.3, STRENGTH * (1 - value) + 0.3)

    def weights(self, states: Floats, says: Floats) -> Floats:
        """Joint weight of each step's evidence and state, up to a factor per step, shape (S, 7); `states` has the prior
        shares."""
        weights: Floats = np.exp(self.log_counts()) * states * _said(self.verdict, says)
        return weights

    def log_counts(self) -> Floats:
        """Log-likelihood of the counts in each state, up to a constant per step, shape (S, 7)."""
        still_open, spoilt = self.log_open(), _log_beta_binomial(self.correct, self.valid, *SPOILT)
        logs = np.stack([still_open, spoilt, spoilt, spoilt, still_open, still_open, still_open], axis=1)
        logs[self.parent_correct == 0] = 0.0  # counts after a prefix without successes carry no information
        relative: Floats = logs - logs.max(axis=1, keepdims=True)
        return relative


def _rows(tree: TreeEvidence) -> list[tuple[int, ...]]:
    inner = set(tree.parents)
    clean: list[bool] = []
    counted: list[StepLabel] = []  # the closest label with counts, from the step upwards
    rows: list[tuple[int, ...]] = []
    for node, (label, kind, parent) in enumerate(zip(tree.labels, tree.kinds, tree.parents, strict=True)):
        above = tree.root if parent < 0 else counted[parent]
        counted.append(label if label.seen_valid else above)
        judge = None if parent < 0 else tree.labels[parent].judge
        clean.append(parent < 0 or (clean[parent] and judge is not None and judge.correct))
        verdict = -1 if label.judge is None else VERDICTS.index(label.judge.error_kind or "correct")
        rows.append(
            (label.seen_correct, label.seen_valid, above.seen_correct, above.seen_valid, STEP_KINDS.index(kind),
             verdict, clean[node], node in inner)
        )  # fmt: skip
    return rows


def _estimated(steps: _Steps) -> JudgeReliability:
    """Expectation-maximisation over the states, with the judge's rates estimated on the anchors only."""
    spoilt = (steps.correct == 0) & (steps.log_open() < np.log(SURELY_SPOILT))
    trusted = _fewest_alarms(steps)
    says = SAYS_PRIOR.copy()
    says[0] += np.bincount(steps.verdict[trusted], minlength=len(VERDICTS))
    says /= says.sum(axis=1, keepdims=True)
    found = dict.fromkeys(VERDICTS, 0.0)
    states = np.tile(STATES_PRIOR / STATES_PRIOR.sum(), (len(STEP_KINDS), 1))
    for _ in range(ITERATIONS):
        weights = steps.weights(states[steps.kind], says)
        weights /= weights.sum(axis=1, keepdims=True)
        for kind in range(len(STEP_KINDS)):
            counted = weights[steps.kind == kind].sum(axis=0) + STATES_PRIOR
            states[kind] = counted / counted.sum()
        for error in range(1, len(VERDICTS)):
            said = np.bincount(steps.verdict[spoilt], weights[spoilt, error], minlength=len(VERDICTS))
            found[VERDICTS[error]] = float(said.sum())
            says[error] = (SAYS_PRIOR[error] + said) / (SAYS_PRIOR[error] + said).sum()
    return JudgeReliability(
        says=tuple(tuple(map(float, row)) for row in says),
        states={kind: tuple(map(float, row)) for kind, row in zip(STEP_KINDS, states, strict=True)},
        anchors={
            "specificity": int(trusted.sum()),
            **{f"sensitivity/{kind}": round(found[kind]) for kind in ERROR_KINDS},
        },
    )


def _carried(after: _Steps, quality: JudgeReliability) -> dict[str, tuple[float, float]]:
    """`JudgeReliability.carried`, from the alarms after a judged error: the share of wrong steps that explains them at
    the judge's rates."""
    shares: dict[str, tuple[float, float]] = {}
    for index, kind in enumerate(STEP_KINDS):
        of_kind = after.chosen(after.kind == index)
        spoilt, still_open = (
            of_kind.verdict[mask] > 0 for mask in (of_kind.parent_correct == 0, of_kind.parent_correct > 0)
        )
        shares[kind] = (_wrong_share(spoilt, quality), _wrong_share(still_open, quality))
    return shares


def _wrong_share(alarms: NDArray[np.bool_], quality: JudgeReliability) -> float:
    kinds = _shares(np.array(list(quality.states.values()))[:, 1:4])
    found = float(kinds @ [quality.rates[f"sensitivity/{kind}"] for kind in ERROR_KINDS])
    false_alarms = 1 - quality.rates["specificity"]
    expected = float(alarms.sum() - false_alarms * len(alarms)) / max(found - false_alarms, 0.05)
    wrong, of = CARRIED_PRIOR
    return (min(max(expected, 0.0), len(alarms)) + wrong) / (len(alarms) + of)


def _fewest_alarms(steps: _Steps) -> NDArray[np.bool_]:
    """Mask of the steps after which most rollouts succeed, of the kind that the judge calls wrong least often."""
    open_steps = (steps.valid >= MIN_VALID) & (2 * steps.correct >= steps.valid)
    alarms: dict[int, float] = {}
    for kind in range(len(STEP_KINDS)):
        of_kind = open_steps & (steps.kind == kind)
        if of_kind.sum() >= MIN_ANCHORS:
            alarms[kind] = ((steps.verdict[of_kind] > 0).sum() + 1) / (of_kind.sum() + 2)
    if not alarms:
        return np.zeros_like(open_steps)
    trusted: NDArray[np.bool_] = open_steps & (steps.kind == min(alarms, key=lambda kind: alarms[kind]))
    return trusted


def _log_beta_binomial(correct: Ints, valid: Ints, a: Floats | float, b: Floats | float) -> Floats:
    """Log-likelihood of the counts, without the binomial coefficient, which all hypotheses share."""
    from scipy.special import betaln  # imported here, because it takes half a second

    result: Floats = betaln(correct + a, valid - correct + b) - betaln(a, b)
    return result
