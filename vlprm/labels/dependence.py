"""How much the mistakes of two sources of verdicts depend on each other, and how much less their votes then count.

Two judges that are one model asked twice miss the same errors: their votes are one vote. On steps that surely have an
error (their counts show it), the correlation of the misses shows the dependence. Alarms elsewhere do not: independent
sources agree there too, because they see the same harmless errors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

MIN_SHARED = 10  # anchors that both sources spoke about; with fewer, only the assumption is left
ASSUMED, PSEUDO = 0.5, 10.0  # sources are dependent until shown otherwise: this correlation, worth as many anchors
SAME = 100  # steps on which two sources always say the same, to be called one source


def dependence_of(verdicts: Ints, spoilt: Mask, estimated: Sequence[bool]) -> Floats:
    """The correlation of the misses of each two sources, shape (sources, sources), 0 on the diagonal. `verdicts` has -1
    where a source did not speak and 0 where it saw no error; `spoilt` marks the steps that surely have one. A source
    with declared rates depends on no other."""
    rho = np.zeros((verdicts.shape[1],) * 2)
    for i in range(len(rho)):
        for j in range(i):
            if estimated[i] and estimated[j]:
                found = correlation(verdicts[:, i], verdicts[:, j], spoilt)
                rho[i, j] = rho[j, i] = ASSUMED if found is None else found
    return rho


def correlation(one: Ints, other: Ints, spoilt: Mask) -> float | None:
    """The correlation of the misses of two sources, drawn towards the assumed one; None if too few steps tell."""
    both = (one >= 0) & (other >= 0)
    if both.sum() >= SAME and np.array_equal(one[both], other[both]):
        return 1.0
    missed, missed_too = one[both & spoilt] == 0, other[both & spoilt] == 0
    n = len(missed)
    if n < MIN_SHARED or not 0 < missed.mean() < 1 or not 0 < missed_too.mean() < 1:
        return None
    return float((n * np.corrcoef(missed, missed_too)[0, 1] + PSEUDO * ASSUMED) / (n + PSEUDO))


def exponents(spoke: Mask, rho: Floats) -> Floats:
    """The exponent of each source's vote on each step, shape (S, sources): 1 / (1 + the sum of its positive
    correlations with the other sources that spoke about the step)."""
    weights: Floats = 1.0 / (1.0 + spoke.astype(np.float64) @ np.maximum(rho, 0.0))
    return weights
