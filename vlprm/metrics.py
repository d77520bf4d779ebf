"""Metrics and their intervals: AUROC, F1, exact best-of-n, paired bootstrap over problems."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlprm.errors import UserError


def percent(value: float) -> str:
    """Format a share in per cent, without the sign."""
    return f"{100 * value:.1f}"


def points(difference: float) -> str:
    """Format a difference of shares in points, with its sign; a difference that rounds to zero is +0.0."""
    return f"{round(100 * difference, 1) + 0.0:+.1f}"


def points_text(difference: Sequence[float] | None) -> str:
    """Format a difference of shares, the low end and the high end of its interval, in points; empty without one."""
    return "" if difference is None else "{} ({} to {})".format(*map(points, difference))


def auroc(scores: ArrayLike, positive: ArrayLike) -> float:
    """Probability that a positive scores above a negative, counting ties as half; NaN if either class is missing."""
    scores_N, positive_N = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    positives, negatives = positive_N.sum(), (~positive_N).sum()
    if positives == 0 or negatives == 0:
        return math.nan
    from scipy.stats import rankdata  # imported here, because it takes seconds

    rank_sum = rankdata(scores_N)[positive_N].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def calibration_error(predicted: ArrayLike, target: ArrayLike, bins: int = 10) -> float:
    """Expected calibration error: the gap between mean prediction and mean target, over bins of equal width."""
    predicted_N, target_N = np.asarray(predicted, dtype=float), np.asarray(target, dtype=float)
    return float(np.abs(np.bincount(_bin(predicted_N, bins), predicted_N - target_N, bins)).sum() / len(predicted_N))


def brier(predicted: ArrayLike, target: ArrayLike) -> float:
    """Brier score: the mean squared difference of prediction and target."""
    return float(np.mean((np.asarray(predicted, dtype=float) - np.asarray(target, dtype=float)) ** 2))


def reliability(predicted: ArrayLike, target: ArrayLike, bins: int = 10) -> list[list[float]]:
    """Mean prediction, mean target and count of each bin of equal width that has a prediction."""
    predicted_N, target_N = np.asarray(predicted, dtype=float), np.asarray(target, dtype=float)
    bin_N = _bin(predicted_N, bins)
    within = [bin_N == k for k in np.unique(bin_N)]
    return [[float(predicted_N[of].mean()), float(target_N[of].mean()), int(of.sum())] for of in within]


def _bin(predicted_N: NDArray[np.float64], bins: int) -> NDArray[np.int_]:
    bin_N: NDArray[np.int_] = np.minimum((predicted_N * bins).astype(int), bins - 1)
    return bin_N


def precision_recall_f1(predicted: ArrayLike, actual: ArrayLike) -> tuple[float, float, float]:
    """Precision, recall and F1 of the positive class; 0 where the denominator is 0."""
    predicted_N, actual_N = np.asarray(predicted, dtype=bool), np.asarray(actual, dtype=bool)
    hits = float((predicted_N & actual_N).sum())
    precision = hits / predicted_N.sum() if predicted_N.any() else 0.0
    recall = hits / actual_N.sum() if actual_N.any() else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return float(precision), float(recall), float(f1)


def class_f1s(called_correct: ArrayLike, correct: ArrayLike) -> tuple[float, float]:
    """F1 of the correct steps and of the wrong steps; their mean is the macro F1."""
    called_N, correct_N = np.asarray(called_correct, dtype=bool), np.asarray(correct, dtype=bool)
    return precision_recall_f1(called_N, correct_N)[2], precision_recall_f1(~called_N, ~correct_N)[2]


def average_precision(scores: ArrayLike, positive: ArrayLike) -> float:
    """Mean of the precision at each positive, with equal scores taken together (area under the precision-recall steps);
    NaN without a positive."""
    scores_N, positive_N = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    if not positive_N.any():
        return math.nan
    order_N = np.argsort(-scores_N, kind="stable")
    last_of_tie = np.append(np.diff(scores_N[order_N]) != 0, True)
    hits = np.cumsum(positive_N[order_N])[last_of_tie]
    taken = np.arange(1, len(scores_N) + 1)[last_of_tie]
    return float((np.diff(hits, prepend=0) * hits / taken).sum() / positive_N.sum())


def best_threshold(scores: ArrayLike, correct: ArrayLike) -> tuple[float, float]:
    """(threshold, macro F1): calling steps correct from this score on gives the best macro F1 on these steps. Ties take
    the smallest threshold; NaN without steps. Use the threshold on other data: on these steps it is biased."""
    scores_N, correct_N = np.asarray(scores, dtype=float), np.asarray(correct, dtype=bool)
    if not len(scores_N):
        return math.nan, math.nan
    candidates, place_N = np.unique(scores_N, return_inverse=True)
    below = [np.bincount(place_N[kind], minlength=len(candidates)) for kind in (correct_N, ~correct_N)]
    # Number of steps of each class that each candidate threshold calls wrong: those with a lower score.
    misses, catches = (np.cumsum(counts) - counts for counts in below)
    hits, slips = correct_N.sum() - misses, (~correct_N).sum() - catches
    both = misses + slips
    with np.errstate(invalid="ignore"):
        f1_correct, f1_error = (np.nan_to_num(2 * right / (2 * right + both)) for right in (hits, catches))
    best = int(np.argmax(f1_correct + f1_error))
    return float(candidates[best]), float((f1_correct[best] + f1_error[best]) / 2)


def expected_best_of(correct_by_score: Sequence[float], n: int) -> float:
    """Expected correctness of the best-scored of n candidates drawn without replacement from the pool.

    `correct_by_score` holds each candidate's correctness, best score first: sum_i c_i C(N-i, n-1) / C(N, n), i from 1.
    Give candidates with equal scores their mean correctness, so that ties are broken at random. UserError unless n is
    between 1 and the pool's size.
    """
    size = len(correct_by_score)
    if not 1 <= n <= size:
        raise UserError(f"best-of-{n} of a pool of {size} candidates; n must be between 1 and the pool's size")
    total = math.comb(size, n)
    return sum(c * math.comb(size - i, n - 1) for i, c in enumerate(correct_by_score, 1)) / total


def bootstrap_interval(
    values: ArrayLike, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean over problems. For the paired bootstrap of two methods, pass each problem's
    difference."""
    values_N: NDArray[np.float64] = np.asarray(values, dtype=float)
    rng = np.random.default_rng(seed)
    means = values_N[rng.integers(0, len(values_N), (resamples, len(values_N)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def grouped_interval(
    values: Sequence[Sequence[float]], level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of all values when the values of a group (a problem) are correlated: the
    bootstrap draws whole groups."""
    sums_G, sizes_G = np.array([sum(group) for group in values]), np.array([len(group) for group in values])
    drawn = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    means = sums_G[drawn].sum(axis=1) / sizes_G[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def grouped_difference(
    first: Sequence[Sequence[float]],
    second: Sequence[Sequence[float]],
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the mean of all values of `first` minus that of `second`, by the paired bootstrap: index
    g of both is one group (a problem), and the bootstrap draws whole groups. A group may be empty."""
    drawn = np.random.default_rng(seed).integers(0, len(first), (resamples, len(first)))
    means = []
    for values in (first, second):
        sums_G, sizes_G = np.array([sum(group) for group in values]), np.array([len(group) for group in values])
        with np.errstate(invalid="ignore", divide="ignore"):
            means.append(sums_G[drawn].sum(axis=1) / sizes_G[drawn].sum(axis=1))
    low, high = np.nanquantile(means[0] - means[1], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
