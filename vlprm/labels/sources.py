"""What is known of each source of verdicts (a judge, a checker): its rates, and how far it depends on the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vlprm.errors import UserError
from vlprm.schema import ERROR_KINDS, STEP_KINDS

VERDICTS = ("correct", *ERROR_KINDS)  # possible verdicts on a step
UNSURE = "unsure"  # a person gives no verdict; it takes back an earlier one
# Pseudo-counts of the states, and of the verdicts on correct steps and on errors of each kind. They equal a few steps,
# and matter only where data is scarce.
STATES_PRIOR = np.array([4, 1, 1, 0.2, 0.5, 0.25, 0.1])
EXACT = 0.98  # least declared rate of a source whose verdicts are anchors
INFORMS = 0.4  # least sensitivity less false alarms; a source without either has 0, one that lies less than 0
CARRIED_PRIOR = (6, 8)  # after an error, 6 of 8 steps are wrong too
SAYS_PRIOR = np.array([[9, 0.4, 0.4, 0.2], [0.5, 3.5, 0.75, 0.25], [0.5, 0.75, 3.5, 0.25], [0.5, 0.5, 0.5, 3.5]])


@dataclass(frozen=True)
class SourceReliability:
    """The reliability of one source of verdicts.

    `kind`: what the source is, in its own words. `says`: rows of probabilities of VERDICTS, for a correct step and for
    an error of each kind. `intervals`: 95% bootstrap intervals over trees of `specificity` and `sensitivity/KIND`,
    [0, 1] if there are too few anchors. `anchors`: number of steps behind each rate. `dependence`: correlation of its
    misses with those of each other source, with its interval in `dependence_intervals`: [-1, 1] if too few steps tell,
    where the correlation is assumed. `declared`: the source gave its rates; they were not estimated. `local`: it
    asks whether a step follows from its premises, so it passes a step that follows from a wrong one, and after an error
    it tells nothing.
    """

    kind: str = ""
    says: tuple[tuple[float, ...], ...] = tuple(tuple(row / row.sum()) for row in SAYS_PRIOR)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    anchors: dict[str, int] = field(default_factory=dict)
    dependence: dict[str, float] = field(default_factory=dict)
    dependence_intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    declared: bool = False
    local: bool = False

    @property
    def rates(self) -> dict[str, float]:
        """Specificity (share of correct steps called correct), and sensitivity by kind (share of errors of the kind
        that are called wrong, with any error kind)."""
        missed = {kind: row[0] for kind, row in zip(VERDICTS, self.says, strict=True)}
        return {
            "specificity": missed["correct"],
            **{f"sensitivity/{kind}": 1 - missed[kind] for kind in ERROR_KINDS},
        }

    @property
    def is_exact(self) -> bool:
        """Whether it declared that it is hardly ever mistaken: then what it says is an anchor for the others."""
        return self.declared and min(self.rates.values()) >= EXACT

    @property
    def informedness(self) -> float:
        """The share of errors that it finds less the share of correct steps that it calls wrong (Youden's J)."""
        found = (self.rates["sensitivity/perception"] + self.rates["sensitivity/reasoning"]) / 2
        return found + self.rates["specificity"] - 1

    @property
    def informs(self) -> bool:
        """Whether its alarms tell errors from correct steps well enough to mark where a solution is still right."""
        return self.informedness >= INFORMS


@dataclass(frozen=True)
class Reliability:
    """The reliability of each source by name, and the estimated states of steps.

    `states`: per kind of step, the shares of the seven states: correct, three kinds of harmful errors, three kinds of
    harmless ones. `carried`: per kind of step, the
    share of wrong steps after a harmful and after a harmless error.
    """

    sources: dict[str, SourceReliability] = field(default_factory=dict)
    states: dict[str, tuple[float, ...]] = field(
        default_factory=lambda: {kind: tuple(STATES_PRIOR / STATES_PRIOR.sum()) for kind in STEP_KINDS}
    )
    carried: dict[str, tuple[float, float]] = field(
        default_factory=lambda: dict.fromkeys(STEP_KINDS, (CARRIED_PRIOR[0] / CARRIED_PRIOR[1],) * 2)
    )

    def of(self, names: Sequence[str]) -> list[SourceReliability]:
        """The sources of these names; the prior for one without an estimate."""
        return [self.sources.get(name, SourceReliability()) for name in names]


def declared(specificity: float, sensitivity: float, local: bool = False) -> SourceReliability:
    """A source with declared rates, the same for all kinds of errors; it nearly always names the kind. UserError if a
    rate is not between 0 and 1."""
    for name, rate in (("specificity", specificity), ("sensitivity", sensitivity)):
        if not 0 < rate < 1:
            raise UserError(f"a declared {name} of {rate} is not between 0 and 1; give a rate such as 0.999")
    correct = [specificity, *[(1 - specificity) / len(ERROR_KINDS)] * len(ERROR_KINDS)]
    wrong = [
        [1 - sensitivity, *(sensitivity * (0.98 if said == kind else 0.01) for said in ERROR_KINDS)]
        for kind in ERROR_KINDS
    ]
    return SourceReliability(says=tuple(map(tuple, (correct, *wrong))), declared=True, local=local)


def rate_text(source: SourceReliability, rate: str) -> str:
    """A rate of a source with its interval, `declared`, or `not known` if too few steps tell."""
    value = source.rates[rate]
    if source.declared:
        return f"{value:.3f} (declared)"
    low, high = source.intervals.get(rate, (0.0, 1.0))
    return "not known" if (low, high) == (0.0, 1.0) else f"{value:.3f} ({low:.3f} to {high:.3f})"


def dependence_text(source: SourceReliability, other: str) -> str:
    """The correlation of a source's misses with another source's, with its interval, or `not known` if too few steps
    tell."""
    rho, (low, high) = source.dependence[other], source.dependence_intervals.get(other, (-1.0, 1.0))
    return f"not known, {rho:.2f} assumed" if (low, high) == (-1.0, 1.0) else f"{rho:.2f} ({low:.2f} to {high:.2f})"
