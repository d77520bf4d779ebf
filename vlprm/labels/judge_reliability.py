"""Estimate the error rates of sources of verdicts without gold labels, and each step's posterior under them (the
`bayes` rule).

A step is correct or has an error of some kind. An error is harmful (the answer is lost) or harmless (the answer is
still reached, such as a misread cell that nobody counts). Rollout counts only separate harmful errors from the rest; a
source (a judge, a checker) separates errors from correct steps, at rates that are unknown. Two sets of anchors give the
rates (after Dawid and Skene, 1979):

- *Sensitivity*. If no rollout succeeds after a step, though its parent's counts predict successes, the step has a
  harmful error, whatever a source says. Sensitivity is how often the source calls these steps wrong.
- *Specificity*. Where rollouts keep succeeding, a false alarm and a harmless error look alike, and an unconstrained
  estimate drifts towards a source that is never wrong. But harmless errors are not equally common in all kinds of
  steps: the kind with the fewest alarms bounds the false alarm rate from above. So specificity is, if anything,
  underestimated.

Counts are of all rollouts from a step or through it. A search chooses where to make rollouts by what it has seen, which
does not matter to a likelihood.

Both use only steps before which some source spoke and none saw an error, because later steps may carry an earlier error
on. Alarms of a source that tells little (`SourceReliability.informs`) do not count for that. The share of steps that
carry an error on is estimated from the alarms after an error, given the sources' rates.

A source may declare its rates. Then they are not estimated, and if it is exact, as a checker is, its verdicts are
anchors for the others. A source that judges a step by its premises alone is heard up to the first error only. Gold
labels add to the counts of what sources say. Sources that miss the same errors count for less:
`vlprm.labels.dependence`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from vlprm.labels.dependence import correlation, dependence_of, exponents
from vlprm.labels.sources import CARRIED_PRIOR, SAYS_PRIOR, STATES_PRIOR, VERDICTS, Reliability, SourceReliability
from vlprm.schema import ERROR_KINDS, STEP_KINDS, StepKind, StepLabel, StepTree, Verdict

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Beta distribution (a, b) of the success rate of rollouts after a harmful error.
SPOILT = (0.3, 6.0)
STRENGTH = 10.0  # pseudo-rollouts that tie the value after a step without harmful error to its parent's value
SURELY_SPOILT = 0.05  # an anchor's counts are less likely than this without a harmful error
MIN_VALID, MIN_ANCHORS = 3, 10
ITERATIONS, RESAMPLES = 40, 100
# A source's ideal verdict per state of a step: correct, three kinds of harmful errors, three of harmless ones.
SEEN = (0, 1, 2, 3, 1, 2, 3)


@dataclass(frozen=True)
class TreeEvidence:
    """The evidence on a tree's N steps: labels (counts and votes), kinds, parents (-1: the prompt), the counts of the
    prompt, and the gold labels of some steps."""

    labels: Sequence[StepLabel]
    kinds: Sequence[StepKind]
    parents: Sequence[int]
    root: StepLabel
    gold: Mapping[int, Verdict] = field(default_factory=dict)

    @classmethod
    def of(cls, tree: StepTree) -> TreeEvidence:
        """The evidence stored in a tree."""
        nodes = tree.nodes
        return cls([n.label for n in nodes], [n.step.kind for n in nodes], [n.parent for n in nodes], tree.root)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources that spoke about a step, in the order of their first vote."""
        return tuple(dict.fromkeys(name for label in self.labels for name in label.votes))


# --- posterior


def posterior_correct(evidence: TreeEvidence, quality: Reliability) -> list[float | None]:
    """The probability that each step is correct, given its counts, its parent's counts and the votes; None without
    counts and votes."""
    names = evidence.sources
    steps = _Steps.of([evidence], names)
    regimes = _weights_by_regime(steps, quality, names)
    known = (steps.valid > 0) | steps.spoke
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


def _weights_by_regime(steps: _Steps, quality: Reliability, names: Sequence[str]) -> Floats:
    """The joint weight of each step's evidence and state given the history, shape (3, S, 7): no error; only harmless
    errors, which a step may carry on; a harmful error, after which counts are equally likely in all states."""
    table, sources = np.array([quality.states[kind] for kind in STEP_KINDS]), quality.of(names)
    says, rho = [np.array(source.says) for source in sources], _dependence(sources, names)
    said = _said(steps.verdicts, says, rho)
    lasting = [i for i, source in enumerate(sources) if not source.local]
    said_later = _said(steps.verdicts[:, lasting], [says[i] for i in lasting], rho[np.ix_(lasting, lasting)])
    logs = steps.log_counts()
    counts = np.exp(logs)
    clean = table[steps.kind]
    carried, harmlessly = np.array([quality.carried[kind] for kind in STEP_KINDS])[steps.kind].T
    open_prior = (1 - harmlessly)[:, None] * clean
    open_prior[:, 4:] += harmlessly[:, None] * _shares(table[:, 4:])
    spoilt_prior = np.zeros_like(clean)
    spoilt_prior[:, 0], spoilt_prior[:, 1:4] = 1 - carried, carried[:, None] * _shares(table[:, 1:4])
    spoilt = np.exp(logs[:, 1:2]) * spoilt_prior * said_later
    regimes: Floats = np.stack([counts * clean * said, counts * open_prior * said_later, spoilt])
    return regimes


def _dependence(sources: Sequence[SourceReliability], names: Sequence[str]) -> Floats:
    """The correlation of the misses of each two sources, 0 on the diagonal."""
    return np.array([[source.dependence.get(name, 0.0) for name in names] for source in sources]).reshape(
        len(names), len(names)
    )


def _shares(table: Floats) -> Floats:
    shares: Floats = table.sum(axis=0) / table.sum()
    return shares


def _said(verdicts: Ints, says: Sequence[Floats], rho: Floats) -> Floats:
    """The probability of each step's votes in each state, shape (S, 7); 1 for a step without votes. A vote counts for
    less if sources that miss the same errors voted on the step too."""
    product = np.ones((len(verdicts), len(SEEN)))
    for verdict, rows, exponent in zip(verdicts.T, says, exponents(verdicts >= 0, rho).T, strict=True):
        said = rows[list(SEEN)][:, verdict].T
        said[verdict < 0] = 1.0
        product *= said if (exponent == 1.0).all() else said ** exponent[:, None]
    return product


# --- estimate


def estimate_reliability(
    trees: Sequence[TreeEvidence],
    known: Mapping[str, SourceReliability] | None = None,
    seed: int = 0,
    local: Collection[str] = (),
) -> Reliability:
    """Estimate the rates of each source and the shares of states from the evidence of trees (some hundred). `known`
    has the sources whose rates are declared; `local` names the other sources that judge a step by its premises."""
    names = tuple(dict.fromkeys(name for tree in trees for name in tree.sources))
    if not names:
        return Reliability()
    fixed = [(known or {}).get(name) for name in names]
    found = _Found.of(trees, names, names, fixed, local)
    if found is None:
        return Reliability()
    sources = found.quality.sources
    best = max(names, key=lambda name: sources[name].informedness)
    informing = tuple(name for name in names if sources[name].informs or name == best)
    if informing != names:
        # The alarms of a weak or lying source leave few steps that look like the first error, and make a good one seem
        # to raise false alarms.
        found = _Found.of(trees, names, informing, fixed, local) or found
    return found.with_intervals(names, fixed, seed)


@dataclass(frozen=True)
class _Found:
    """An estimate, the dependence of the sources, and each tree's telling steps and steps with gold labels."""

    quality: Reliability
    rho: Floats
    each: Sequence[tuple[_Steps, _Steps]]

    @staticmethod
    def of(
        trees: Sequence[TreeEvidence],
        names: Sequence[str],
        informing: Sequence[str],
        fixed: Sequence[SourceReliability | None],
        local: Collection[str],
    ) -> _Found | None:
        """The estimate, where the alarms of the `informing` sources end the clean part of a solution; None without a
        telling step."""
        columns = [_Steps.of([tree], names, informing) for tree in trees]
        each = [(steps.telling(), steps.with_gold()) for steps in columns]
        everything, gold = _joined(each)
        if not len(everything.kind):
            return None
        rho = dependence_of(everything.verdicts, everything.surely_spoilt, [source is None for source in fixed])
        quality = _estimated(everything, gold, names, fixed, rho)
        sources = {name: replace(s, local=s.local or name in local) for name, s in quality.sources.items()}
        quality = replace(quality, sources=sources)
        after = _Steps.joined([steps.after_errors() for steps in columns])
        return _Found(replace(quality, carried=_carried(after, quality, names)), rho, each)

    def with_intervals(self, names: Sequence[str], fixed: Sequence[SourceReliability | None], seed: int) -> Reliability:
        """The estimate with bootstrap intervals of the rates and the dependence, over trees."""
        rng, free = np.random.default_rng(seed), [source is None for source in fixed]
        drawn, correlated = [], []
        for _ in range(RESAMPLES):
            telling, gold = _joined([self.each[i] for i in rng.integers(len(self.each), size=len(self.each))])
            drawn.append(_estimated(telling, gold, names, fixed, self.rho))
            correlated.append(dependence_of(telling.verdicts, telling.surely_spoilt, free))
        low, high = np.percentile(correlated, [2.5, 97.5], axis=0)
        everything, _ = _joined(self.each)

        def between(i: int, j: int) -> tuple[float, float]:
            told = correlation(everything.verdicts[:, i], everything.verdicts[:, j], everything.surely_spoilt)
            return (-1.0, 1.0) if told is None else (float(low[i, j]), float(high[i, j]))

        sources = {
            name: replace(
                source,
                intervals=_intervals(source, [other.sources[name] for other in drawn]),
                dependence_intervals={
                    other: between(i, j) for j, other in enumerate(names) if j != i and free[i] and free[j]
                },
            )
            for i, (name, source) in enumerate(self.quality.sources.items())
        }
        return replace(self.quality, sources=sources)


def _joined(each: Sequence[tuple[_Steps, _Steps]]) -> tuple[_Steps, _Steps]:
    return _Steps.joined([telling for telling, _ in each]), _Steps.joined([gold for _, gold in each])


def _intervals(source: SourceReliability, drawn: Sequence[SourceReliability]) -> dict[str, tuple[float, float]]:
    if source.declared:
        return {}
    intervals: dict[str, tuple[float, float]] = {}
    for name in source.rates:
        low, high = np.percentile([other.rates[name] for other in drawn], [2.5, 97.5])
        known = source.anchors[name] >= MIN_ANCHORS
        intervals[name] = (float(low), float(high)) if known else (0.0, 1.0)  # only the prior
    return intervals


@dataclass(frozen=True)
class _Steps:
    """Columns over S steps. `parent_correct` and `parent_valid` are the counts of the closest ancestor with counts, or
    of the prompt, because a search makes rollouts from some steps only. `verdicts`, shape (S, sources), and `gold`
    index VERDICTS (-1: none). `clean`: at each step before, some source spoke and no informing one saw an error.
    `inner`: the step has children."""

    correct: Ints
    valid: Ints
    parent_correct: Ints
    parent_valid: Ints
    kind: Ints
    gold: Ints
    clean: NDArray[np.bool_]
    inner: NDArray[np.bool_]
    verdicts: Ints

    @staticmethod
    def of(trees: Sequence[TreeEvidence], names: Sequence[str], informing: Sequence[str] | None = None) -> _Steps:
        rows = [row for tree in trees for row in _rows(tree, names, names if informing is None else informing)]
        columns = np.array(rows, dtype=np.int64).reshape(-1, 8 + len(names)).T
        correct, valid, parent_correct, parent_valid, kind, gold, clean, inner = columns[:8]
        return _Steps(
            correct, valid, parent_correct, parent_valid, kind, gold, clean.astype(bool), inner.astype(bool),
            columns[8:].T,
        )  # fmt: skip

    @staticmethod
    def joined(parts: Sequence[_Steps]) -> _Steps:
        return _Steps(*(np.concatenate([getattr(part, name) for part in parts]) for name in _Steps.__annotations__))

    def chosen(self, mask: NDArray[np.bool_]) -> _Steps:
        return _Steps(*(getattr(self, name)[mask] for name in _Steps.__annotations__))

    @property
    def spoke(self) -> NDArray[np.bool_]:
        """Whether any source spoke about the step."""
        return np.asarray((self.verdicts >= 0).any(axis=1), dtype=np.bool_)

    @property
    def surely_spoilt(self) -> NDArray[np.bool_]:
        """Whether the counts alone show a harmful error."""
        return np.asarray((self.correct == 0) & (self.log_open() < np.log(SURELY_SPOILT)), dtype=np.bool_)

    def telling(self) -> _Steps:
        return self.chosen((self.parent_correct > 0) & self.spoke & self.clean & self.inner)

    def after_errors(self) -> _Steps:
        return self.chosen(self.spoke & ~self.clean & self.inner)

    def with_gold(self) -> _Steps:
        return self.chosen(self.gold >= 0)

    def log_open(self) -> Floats:
        """Log-likelihood of the counts without a harmful error: the value is close to the parent's."""
        value = (self.parent_correct + 0.75) / (self.parent_valid + 1.25)
        return _log_beta_binomial(self.correct, self.valid, STRENGTH * value + 0.3, STRENGTH * (1 - value) + 0.3)

    def log_counts(self) -> Floats:
        """Log-likelihood of the counts in each state, up to a constant per step, shape (S, 7)."""
        still_open, spoilt = self.log_open(), _log_beta_binomial(self.correct, self.valid, *SPOILT)
        logs = np.stack([still_open, spoilt, spoilt, spoilt, still_open, still_open, still_open], axis=1)
        logs[self.parent_correct == 0] = 0.0  # counts after a prefix without successes carry no information
        relative: Floats = logs - logs.max(axis=1, keepdims=True)
        return relative


def _rows(tree: TreeEvidence, names: Sequence[str], informing: Sequence[str]) -> list[tuple[int, ...]]:
    inner = set(tree.parents)
    clean: list[bool] = []
    counted: list[StepLabel] = []  # the closest label with counts, from the step upwards
    rows: list[tuple[int, ...]] = []
    for node, (label, kind, parent) in enumerate(zip(tree.labels, tree.kinds, tree.parents, strict=True)):
        above = tree.root if parent < 0 else counted[parent]
        counted.append(label if label.seen_valid else above)
        votes = {} if parent < 0 else tree.labels[parent].votes
        alarmed = any(name in informing and not vote.correct for name, vote in votes.items())
        clean.append(parent < 0 or (clean[parent] and bool(votes) and not alarmed))
        rows.append(
            (label.seen_correct, label.seen_valid, above.seen_correct, above.seen_valid, STEP_KINDS.index(kind),
             _place(tree.gold.get(node)), clean[node], node in inner, *(_place(label.votes.get(n)) for n in names))
        )  # fmt: skip
    return rows


def _place(verdict: Verdict | None) -> int:
    """Index of a verdict in VERDICTS; -1 for none."""
    return -1 if verdict is None else VERDICTS.index(verdict.error_kind or "correct")


def _estimated(
    steps: _Steps, gold: _Steps, names: Sequence[str], fixed: Sequence[SourceReliability | None], rho: Floats
) -> Reliability:
    """Expectation-maximisation over the states, with the sources' rates estimated on the anchors only."""
    free = [i for i, source in enumerate(fixed) if source is None]
    exact = steps.verdicts[:, [i for i, source in enumerate(fixed) if source and source.is_exact]]
    alarmed = (exact > 0).any(axis=1)
    anchors = steps.surely_spoilt | alarmed
    trusted = {i: _fewest_alarms(steps, i) | (_is_open(steps) & (exact == 0).any(axis=1)) for i in free}
    says = [SAYS_PRIOR.copy() if source is None else np.array(source.says) for source in fixed]
    known = {i: _known(gold, i) for i in free}
    for i in free:
        says[i] += known[i]
        says[i][0] += np.bincount(_spoken(steps.verdicts[trusted[i], i]), minlength=len(VERDICTS))
        says[i] /= says[i].sum(axis=1, keepdims=True)
    found = {i: dict.fromkeys(VERDICTS, 0.0) for i in free}
    states = np.tile(STATES_PRIOR / STATES_PRIOR.sum(), (len(STEP_KINDS), 1))
    counts = np.exp(steps.log_counts())
    for _ in range(ITERATIONS):
        weights = counts * states[steps.kind] * _said(steps.verdicts, says, rho)
        weights /= weights.sum(axis=1, keepdims=True)
        for kind in range(len(STEP_KINDS)):
            counted = weights[steps.kind == kind].sum(axis=0) + STATES_PRIOR
            states[kind] = counted / counted.sum()
        for error in range(1, len(VERDICTS)):
            harm = weights[:, error] + np.where(alarmed, weights[:, error + 3], 0.0)
            for i in free:
                spoke = anchors & (steps.verdicts[:, i] >= 0)
                said = np.bincount(steps.verdicts[spoke, i], harm[spoke], minlength=len(VERDICTS))
                found[i][VERDICTS[error]] = float(said.sum())
                prior = SAYS_PRIOR[error] + known[i][error]
                says[i][error] = (prior + said) / (prior + said).sum()
    behind = {
        i: {
            "specificity": int((trusted[i] & (steps.verdicts[:, i] >= 0)).sum() + known[i][0].sum()),
            **{f"sensitivity/{k}": round(found[i][k] + known[i][e].sum()) for e, k in enumerate(ERROR_KINDS, 1)},
        }
        for i in free
    }
    return Reliability(
        sources={
            name: source
            or SourceReliability(
                says=tuple(tuple(map(float, row)) for row in says[i]),
                anchors=behind[i],
                dependence={other: float(rho[i, j]) for j, other in enumerate(names) if j != i},
            )
            for i, (name, source) in enumerate(zip(names, fixed, strict=True))
        },
        states={kind: tuple(map(float, row)) for kind, row in zip(STEP_KINDS, states, strict=True)},
    )


def _spoken(verdicts: Ints) -> Ints:
    return verdicts[verdicts >= 0]


def _known(gold: _Steps, source: int) -> Floats:
    """How often the source said each verdict on steps of each gold label, shape (4, 4)."""
    counts = np.zeros((len(VERDICTS), len(VERDICTS)))
    spoke = gold.verdicts[:, source] >= 0
    np.add.at(counts, (gold.gold[spoke], gold.verdicts[spoke, source]), 1.0)
    return counts


def _carried(after: _Steps, quality: Reliability, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """`Reliability.carried`, from the alarms after an alarm: the share of wrong steps that explains them at the
    sources' rates."""
    shares: dict[str, tuple[float, float]] = {}
    for index, kind in enumerate(STEP_KINDS):
        of_kind = after.chosen(after.kind == index)
        shares[kind] = (
            _wrong_share(of_kind.verdicts[of_kind.parent_correct == 0], quality, names),
            _wrong_share(of_kind.verdicts[of_kind.parent_correct > 0], quality, names),
        )
    return shares


def _wrong_share(verdicts: Ints, quality: Reliability, names: Sequence[str]) -> float:
    kinds = _shares(np.array(list(quality.states.values()))[:, 1:4])
    wrong, of = CARRIED_PRIOR
    expected = spoken = 0.0
    sources = quality.of(names)
    exponent = exponents(verdicts >= 0, _dependence(sources, names))
    for source, column, counts in zip(sources, verdicts.T, exponent.T, strict=True):
        if source.local:
            continue
        alarms, total = float(counts[column > 0].sum()), float(counts[column >= 0].sum())
        found = float(kinds @ [source.rates[f"sensitivity/{kind}"] for kind in ERROR_KINDS])
        false_alarms = 1 - source.rates["specificity"]
        expected += min(max((alarms - false_alarms * total) / max(found - false_alarms, 0.05), 0.0), total)
        spoken += total
    return (expected + wrong) / (spoken + of)


def _is_open(steps: _Steps) -> NDArray[np.bool_]:
    """Mask of the steps after which most rollouts succeed."""
    is_open: NDArray[np.bool_] = (steps.valid >= MIN_VALID) & (2 * steps.correct >= steps.valid)
    return is_open


def _fewest_alarms(steps: _Steps, source: int) -> NDArray[np.bool_]:
    """Mask of the steps after which most rollouts succeed and whose kind the source calls wrong least often."""
    verdict = steps.verdicts[:, source]
    open_steps = _is_open(steps) & (verdict >= 0)
    alarms: dict[int, float] = {}
    for kind in range(len(STEP_KINDS)):
        of_kind = open_steps & (steps.kind == kind)
        if of_kind.sum() >= MIN_ANCHORS:
            alarms[kind] = ((verdict[of_kind] > 0).sum() + 1) / (of_kind.sum() + 2)
    if not alarms:
        return np.zeros_like(open_steps)
    trusted: NDArray[np.bool_] = open_steps & (steps.kind == min(alarms, key=lambda kind: alarms[kind]))
    return trusted


def _log_beta_binomial(correct: Ints, valid: Ints, a: Floats | float, b: Floats | float) -> Floats:
    """Log-likelihood of the counts, without the binomial coefficient, which all hypotheses share."""
    from scipy.special import betaln  # imported here, because it takes half a second

    result: Floats = betaln(correct + a, valid - correct + b) - betaln(a, b)
    return result
