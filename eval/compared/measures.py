"""What the comparison measures of each way to choose: accuracy, cost, agreement, equal cost and shared errors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.compared.choosers import ORACLE, VOTE, Chooser
from eval.runs.pools import Pool
from eval.runs.results import Key, Values
from eval.tables.statistics import RESAMPLES, differences, intervals, mean_spend, means
from vlprm.metrics import bootstrap_interval
from vlprm.search.select import agreement
from vlprm.search.tokens import UNITS, Unit, is_too_small

# Strata of agreement: the share of the most common answer lies above the first number and at most at the second.
STRATA = ((0.0, 0.5), (0.5, 0.75), (0.75, 0.999), (0.999, 1.0))
STRATUM_NAMES = ("at most half agree", "up to 3 in 4", "more, not all", "all agree")
ByKey = dict[Key, float]


def values_of(chooser: Chooser, keys: Sequence[Key], n: int) -> ByKey:
    """How often the choice is right, per problem."""
    return {key: chooser.value(key, n) for key in keys}


def oracle_of(pools: Mapping[Key, Pool], n: int) -> ByKey:
    """Whether one of the first `n` candidates is right, per problem."""
    return {key: max(pool.values[:n], default=0.0) for key, pool in pools.items()}


def nested(values: Mapping[Key, float]) -> Values:
    """The values by benchmark, then by problem."""
    found: Values = defaultdict(dict)
    for (benchmark, problem), value in values.items():
        found[benchmark][problem] = value
    return found


def accuracy_rows(choosers: Sequence[Chooser], values: Mapping[str, ByKey], n: int) -> dict[str, Any]:
    """Accuracy per benchmark and in the mean, the difference to the vote, and tokens and FLOPs per problem. `asked`:
    share of the problems whose candidates the reward model reads."""
    rows = {title: nested(of) for title, of in values.items()}
    apart = differences(rows, VOTE)
    known = {chooser.title: chooser for chooser in choosers}
    found: dict[str, Any] = {}
    for title, of in rows.items():
        cells = means(of)
        row: dict[str, Any] = {
            "accuracy": float(np.mean(list(cells.values()))),
            "difference": apart.get(title),
            "by_benchmark": {name: {"accuracy": cells[name], "ci": ci} for name, ci in intervals(of).items()},
        }
        if title != ORACLE:
            chooser = known[title]
            spends = [chooser.spends(key, n)[-1] for key in values[title]]
            spend = mean_spend(spends)
            asked = [chooser.reads(chooser.pools[key].candidates[:n]) for key in values[title]]
            row |= {"tokens": spend.tokens, "flops": spend.flops, "asked": float(np.mean(asked))}
        found[title] = row
    return found


def strata(pools: Mapping[Key, Pool], values: Mapping[str, ByKey], n: int) -> list[dict[str, Any]]:
    """Accuracy with its interval, and the paired difference to the vote with its interval, by the share of the most
    common answer among the first `n` candidates."""
    shares = {key: agreement(pool.candidates[:n]) for key, pool in pools.items()}
    found = []
    for (low, high), name in zip(STRATA, STRATUM_NAMES, strict=True):
        keys = [key for key, share in shares.items() if low < share <= high or (low == 0 and share == 0)]
        rows = {title: _stratum([of[key] for key in keys], [values[VOTE][key] for key in keys])
                for title, of in values.items()} if keys else {}  # fmt: skip
        found.append({"agreement": name, "problems": len(keys), "rows": rows})
    return found


def _stratum(own: Sequence[float], vote: Sequence[float]) -> dict[str, Any]:
    apart = np.subtract(own, vote)
    return {
        "accuracy": float(np.mean(own)),
        "ci": list(bootstrap_interval(own)),
        "difference": [float(apart.mean()), *bootstrap_interval(apart)],
    }


def equal_cost(
    choosers: Sequence[Chooser], values: Mapping[str, ByKey], n: int, units: Sequence[Unit] = UNITS
) -> list[dict[str, Any]]:
    """For each way that asks a reward model: its choice among as many candidates as the vote over `n` pays for, and the
    vote over as many candidates of the whole pool as its choice among `n` pays for. `too_small`: problems whose pool
    the second amount exceeds. Differences are the way minus the vote."""
    vote = next(chooser for chooser in choosers if chooser.title == VOTE)
    keys, found = list(values[VOTE]), []
    whole = {key: vote.spends(key, len(vote.pools[key].candidates)) for key in keys}
    for chooser in choosers:
        if not any(chooser.reads(chooser.pools[key].candidates[:n]) for key in keys):
            continue
        for unit in units:
            fewer = {key: chooser.affords(key, vote.spends(key, n)[-1], unit) for key in keys}
            spent = {key: chooser.spends(key, n)[-1] for key in keys}
            more = {key: vote.affords(key, spent[key], unit) for key in keys}
            at_votes = {key: chooser.value(key, size) for key, size in fewer.items()}
            at_own = {key: vote.value(key, size) for key, size in more.items()}
            found.append({
                "title": chooser.title,
                "unit": unit,
                "at_cost_of_vote": _against(at_votes, values[VOTE], fewer),
                "vote_at_its_cost": _against(values[chooser.title], at_own, more),
                "too_small": sum(is_too_small(whole[key], spent[key], unit) for key in keys),
            })  # fmt: skip
    return found


def _against(own: ByKey, vote: ByKey, sizes: Mapping[Key, int]) -> dict[str, Any]:
    rows = {VOTE: nested(vote), "own": nested(own)}
    cells = {name: float(np.mean(list(means(of).values()))) for name, of in rows.items()}
    return {
        "accuracy": cells["own"],
        "vote": cells[VOTE],
        "candidates": float(np.mean(list(sizes.values()))),
        "difference": differences(rows, VOTE)["own"],
    }


def shared_errors(pools: Mapping[Key, Pool], values: Mapping[str, ByKey], n: int) -> dict[str, Any]:
    """How the errors of each choice go with those of the vote: phi with its interval over all problems and over those
    whose candidates disagree, and the expected counts of problems by who is right. Phi is the correlation of the two
    chances of being wrong, which are 0 or 1 without ties; the counts take ties to be broken independently."""
    disagree = [key for key, pool in pools.items() if agreement(pool.candidates[:n]) < 1]
    found = {}
    for title, of in values.items():
        if title in (VOTE, ORACLE):
            continue
        own, vote = (np.array([row[key] for key in pools]) for row in (of, values[VOTE]))
        found[title] = {
            "phi": phi(own, vote),
            "phi_where_any_disagree": phi(*(np.array([row[key] for key in disagree]) for row in (of, values[VOTE]))),
            "both_right": float((own * vote).sum()),
            "vote_alone": float((vote * (1 - own)).sum()),
            "own_alone": float((own * (1 - vote)).sum()),
            "both_wrong": float(((1 - own) * (1 - vote)).sum()),
        }
    return found


def phi(first: NDArray[np.float64], second: NDArray[np.float64]) -> dict[str, Any] | None:
    """The correlation of two rows of values with its 95% interval over problems; None if one of them is constant."""
    if len(first) < 2 or first.std() == 0 or second.std() == 0:
        return None
    rng = np.random.default_rng(0)
    drawn = [_correlation(first[at], second[at]) for at in rng.integers(0, len(first), (RESAMPLES, len(first)))]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return {"value": _correlation(first, second), "ci": [float(low), float(high)]}


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    spread = first.std() * second.std()
    return float(((first - first.mean()) * (second - second.mean())).mean() / spread) if spread else float("nan")
