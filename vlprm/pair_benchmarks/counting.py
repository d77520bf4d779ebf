"""The accuracy of preferences, by the rule of a pair benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlprm.pair_benchmarks.pairs import Credit, Pair, PairBenchmark, Preference


def measured(
    benchmark: PairBenchmark, pairs: Sequence[Pair], preferences: Sequence[Sequence[Preference]]
) -> dict[str, Any]:
    """Accuracy over all pairs and per group, and its mean over groups (`macro_accuracy`). A number is absent where
    nothing counts."""
    of_group: dict[str, list[Credit]] = {}
    for pair, of_pair in zip(pairs, preferences, strict=True):
        of_group.setdefault(pair.group, []).append(benchmark.credit(of_pair))
    by_group = {
        group: {"pairs": len(credits), "accuracy": _accuracy(credits)}
        for group, credits in of_group.items() if any(credit.weight for credit in credits)
    }  # fmt: skip
    if not by_group:
        return {"by_group": {}}
    accuracies = [row["accuracy"] for row in by_group.values()]
    return {
        "accuracy": _accuracy([credit for credits in of_group.values() for credit in credits]),
        "macro_accuracy": sum(accuracies) / len(accuracies),
        "by_group": by_group,
    }


def _accuracy(credits: Sequence[Credit]) -> float:
    return sum(credit.value * credit.weight for credit in credits) / sum(credit.weight for credit in credits)


def each_known(preferences: Sequence[Preference]) -> Credit:
    """Every preference with a result counts once."""
    known = [preference for preference in preferences if preference is not None]
    return Credit(sum(known) / len(known) if known else 0.0, len(known))


def by_majority(preferences: Sequence[Preference]) -> Credit:
    """The majority of a pair's preferences counts once, an even vote as half; a pair that lacks one is left out."""
    known = [preference for preference in preferences if preference is not None]
    if len(known) < len(preferences):
        return Credit(0.0, 0)
    right = sum(known) / len(known)
    return Credit(0.5 if right == 0.5 else float(right > 0.5), 1)


def coin_if_none(preferences: Sequence[Preference]) -> Credit:
    """A pair counts once; a preference without a result counts as half, what a fair coin is right in the mean."""
    return Credit(sum(0.5 if preference is None else preference for preference in preferences) / len(preferences), 1)
