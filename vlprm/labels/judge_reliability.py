"""How far a judge can be trusted, found from the data alone, and what follows for each step: the `bayes` rule.

A step is correct, or it has an error of a kind, harmful (the answer is lost) or harmless (it is still reached: a cell
misread that nobody counts). Counts tell harmful errors from the rest, and nothing else; the judge tells errors from
correct steps, at rates that have to be known. Two anchors give them without gold labels (after Dawid and Skene, 1979):

- *Sensitivity*. A step after which no rollout succeeds, though many should have by its parent's counts, has a harmful
  error whatever the judge says. How often the judge calls such steps wrong is its sensitivity.
- *Specificity*. Where rollouts go on succeeding, a false alarm and a harmless error look the same, and an estimate
  that is free to choose runs away to a judge who is never wrong. But harmless errors are not equally common among the
  kinds of steps: the kind with the fewest alarms bounds the rate of false ones from above. So the specificity is, if
  anything, underestimated.

For both, only steps before which the judge saw no error take part: an error that is carried on is no news. How often
steps of a kind do carry one on is told by the share of alarms after an error, given the judge's rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from vlprm.schema import ERROR_KINDS, STEP_KINDS, StepKind, StepLabel, StepTree

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

VERDICTS = ("correct", *ERROR_KINDS)  # what a judge says of a step
# Shapes of the Beta distribution of the rate at which rollouts succeed once an error has spoilt the solution.
SPOILT = (0.3, 6.0)
STRENGTH = 10.0  # how closely the value after a step that spoils nothing follows its parent's, in rollouts
SURELY_SPOILT = 0.05  # so unlikely are the counts of an anchor if nothing was spoilt
MIN_VALID, MIN_ANCHORS = 3, 10
ITERATIONS, RESAMPLES = 40, 100
# The states of a step: correct; a harmful error of each kind; a harmless one of each. What the judge sees of each.
SEEN = (0, 1, 2, 3, 1, 2, 3)
# Pseudo-counts: of the states, and of what the judge says of a correct step and of one with an error of each kind. They
# amount to a few steps, and decide only what the data does not speak of.
STATES_PRIOR = np.array([4, 1, 1, 0.2, 0.5, 0.25, 0.1])
CARRIED_PRIOR = (6, 8)  # of so many steps after an error, so many are wrong too
SAYS_PRIOR = np.array([[9, 0.4, 0.4, 0.2], [0.5, 3.5, 0.75, 0.25], [0.5, 0.75, 3.5, 0.25], [0.5, 0.5, 0.5, 3.5]])


@dataclass(frozen=True)
class TreeEvidence:
    """What is known of a tree's N steps: labels (counts and verdicts), kinds, parents (-1: the prompt), and the counts
    of the prompt itself."""

    labels: Sequence[StepLabel]
    kinds: Sequence[StepKind]
    parents: Sequence[int]
    root: StepLabel

    @classmethod
    def of(cls, tree: StepTree) -> TreeEvidence:
        nodes = tree.nodes
        return cls([n.label for n in nodes], [n.step.kind for n in nodes], [n.parent for n in nodes], tree.root)


@dataclass(frozen=True)
class JudgeReliability:
    """What is believed of the judge and of the steps it is asked about.

    `says` has, for a correct step and for one with an error of each kind, the probabilities of the judge's VERDICTS.
    `states` has, for each kind of step, the shares of the seven states in the order of SEEN; `carried` the shares of
    wrong steps after an error, one that has spoilt the solution and one that has not. `intervals` are 95%
    bootstrap intervals over trees of `specificity` and of `sensitivity/KIND`, all of [0, 1] where there are too few
    anchors, the steps that a rate was found from.
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
        """Specificity (how often a correct step is called correct), and sensitivity by kind (how often an error of the
        kind is called an error, of whatever kind)."""
        missed = {kind: row[0] for kind, row in zip(VERDICTS, self.says, strict=True)}
        return {
            "specificity": missed["correct"],
            **{f"sensitivity/{kind}": 1 - missed[kind] for kind in ERROR_KINDS},
        }


def posterior_correct(evidence: TreeEvidence, quality: JudgeReliability) -> list[float | None]:
    """For each step the probability that it is correct, given its counts, its parent's and the judge's verdict; None
    where there are no counts and no verdict."""
    steps = _Steps.of([evidence])
    regimes = _weights_by_regime(steps, quality)
    known = (steps.valid > 0) | (steps.verdict >= 0)
    posteriors: list[float] = []
    before: list[Floats] = []  # the step and those before it: all correct; with harmless errors; spoilt
    for node, parent in enumerate(evidence.parents):
        prior = before[parent] if parent >= 0 else np.array([1.0, 0.0, 0.0])
        joint = prior[:, None] * regimes[:, node]
        joint /= joint.sum()
        posteriors.append(float(joint[:, 0].sum()))
        harmful = joint[:2, 1:4].sum()
        before.append(np.array([joint[0, 0], joint[1, 0] + joint[:2, 4:].sum(), joint[2].sum() + harmful]))
    return [value if k else None for value, k in zip(posteriors, known, strict=True)]


def _weights_by_regime(steps: _Steps, quality: JudgeReliability) -> Floats:
    """`_Steps.weights` for each of what may have come before, shape (3, S, 7): no error; harmless ones, which a step
    may carry on; one that has spoilt the solution, after which counts are alike in all states."""
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
    """The probability of each step's verdict in each of its states, 1 where there is none."""
    said: Floats = says[list(SEEN)][:, verdict].T
    said[verdict < 0] = 1.0
    return said


def estimate_reliability(trees: Sequence[TreeEvidence], seed: int = 0) -> JudgeReliability:
    """The judge's rates and the shares of states, from the evidence of some hundred trees."""
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
        intervals[name] = (float(low), float(high)) if known else (0.0, 1.0)  # the prior's alone
    return replace(quality, intervals=intervals)


@dataclass(frozen=True)
class _Steps:
    """Columns over S steps. The counts of the `parent` are those of the last step before it that has any, or else of
    the prompt: a search makes rollouts from some steps only. `verdict` indexes VERDICTS, -1: none. `clean`: the judge
    saw no error before it. `inner`: the search went on from it, so that it does not end a solution."""

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
        """Likelihood of the counts where the step spoils nothing: its value is close to its parent's."""
        value = (self.parent_correct + 0.75) / (self.parent_valid + 1.25)
        return _log_beta_binomial(self.correct, self.valid, STRENGTH * value + 0.3, STRENGTH * (1 - value) + 0.3)

    def weights(self, states: Floats, says: Floats) -> Floats:
        """Joint weight of each step's evidence with each of its states, up to a factor a step, shape (S, 7); `states`
        has each step's shares of them."""
        weights: Floats = np.exp(self.log_counts()) * states * _said(self.verdict, says)
        return weights

    def log_counts(self) -> Floats:
        """Likelihood of the counts in each state, up to a factor a step, shape (S, 7)."""
        still_open, spoilt = self.log_open(), _log_beta_binomial(self.correct, self.valid, *SPOILT)
        logs = np.stack([still_open, spoilt, spoilt, spoilt, still_open, still_open, still_open], axis=1)
        logs[self.parent_correct == 0] = 0.0  # after a prefix from which nothing succeeded, counts say nothing
        relative: Floats = logs - logs.max(axis=1, keepdims=True)
        return relative


def _rows(tree: TreeEvidence) -> list[tuple[int, ...]]:
    inner = set(tree.parents)
    clean: list[bool] = []
    counted: list[StepLabel] = []  # the step, or else the last one before it, that has counts
    rows: list[tuple[int, ...]] = []
    for node, (label, kind, parent) in enumerate(zip(tree.labels, tree.kinds, tree.parents, strict=True)):
        above = tree.root if parent < 0 else counted[parent]
        counted.append(label if label.mc_valid else above)
        judge = None if parent < 0 else tree.labels[parent].judge
        clean.append(parent < 0 or (clean[parent] and judge is not None and judge.correct))
        verdict = -1 if label.judge is None else VERDICTS.index(label.judge.error_kind or "correct")
        rows.append(
            (label.mc_correct, label.mc_valid, above.mc_correct, above.mc_valid, STEP_KINDS.index(kind), verdict,
             clean[node], node in inner)
        )  # fmt: skip
    return rows


def _estimated(steps: _Steps) -> JudgeReliability:
    """Expectation-maximisation over the states, with the judge's rates found on the anchors alone."""
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
    """`JudgeReliability.carried`, from the steps after which the judge saw an error: the share that the share of alarms
    comes from at the judge's rates."""
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
    """The steps from which most rollouts succeed, of the kind that the judge calls wrong the least often there."""
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
    """Log-likelihood of the counts, up to the binomial coefficient that all hypotheses share."""
    from scipy.special import betaln  # half a second, which a command that only names the rules need not wait

    result: Floats = betaln(correct + a, valid - correct + b) - betaln(a, b)
    return result
