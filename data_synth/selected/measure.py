"""How often every step of a selected solution with a right answer is right, beside other ways to select: a measure
that needs no trained policy. Only drawn problems know it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from data_synth.selected.candidates import Candidate
from data_synth.selected.config import By, SelectConfig
from data_synth.selected.ranking import Selection, selection
from vlprm.metrics import grouped_difference, grouped_interval, percent, points_text

DRAWS = 10  # random orders over which the two baselines are averaged
Values = dict[str, list[float]]  # by problem: 1 for each solution whose steps are all right, 0 for another


def measured(candidates: Sequence[Candidate], made: Selection, config: SelectConfig) -> dict[str, Any]:
    """The measure of the selection, and of `outcome` and `random` with the same limits: `selected`, `right` (share of
    right answers), `true` (share of those with every step right, with its 95% interval over problems), and the
    selection's paired `difference`. Empty unless all problems are drawn."""
    if any(one.true is None for one in candidates):
        return {}
    limits = config.alpha, config.keep, config.per_problem, config.unlike
    own = _by_problem(made.candidates)
    rows: dict[str, Any] = {config.by: _row([made.candidates])}
    baselines: tuple[By, ...] = ("outcome", "random")
    for by in baselines:
        draws = [selection(candidates, by, *limits, f"{config.seed} {n}").candidates for n in range(DRAWS)]
        other = _by_problem([one for draw in draws for one in draw])
        row = _row(draws)
        if own and other:
            names = sorted({*own, *other})
            first, second = ([values.get(name, []) for name in names] for values in (own, other))
            row["difference"] = _mean(own) - _mean(other)
            row["difference_ci"] = list(grouped_difference(first, second))
        rows[by if by != config.by else f"{by}, averaged"] = row
    return rows


def _by_problem(chosen: Sequence[Candidate]) -> Values:
    found: Values = defaultdict(list)
    for one in chosen:
        if one.right:
            found[one.problem_id].append(float(one.true is True))
    return found


def _mean(values: Values) -> float:
    every = [value for group in values.values() for value in group]
    return sum(every) / len(every)


def _row(draws: Sequence[Sequence[Candidate]]) -> dict[str, Any]:
    every = [one for draw in draws for one in draw]
    values = _by_problem(every)
    return {
        "selected": len(every) / len(draws),
        "right": sum(one.right is True for one in every) / len(every) if every else None,
        "true": _mean(values) if values else None,
        "ci": list(grouped_interval(list(values.values()))) if values else None,
    }


def table(measures: dict[str, Any]) -> Table:
    """The measures as a table, in per cent."""
    shown = Table("selected by", "solutions", "right answer", "of these, every step right", "gain of the selection")
    for name, row in measures.items():
        true = "-" if row["true"] is None else "{} ({} to {})".format(*map(percent, (row["true"], *row["ci"])))
        gain = points_text([row["difference"], *row["difference_ci"]]) if "difference" in row else ""
        right = "-" if row["right"] is None else percent(row["right"])
        shown.add_row(name, f"{row['selected']:.0f}", right, true, gain)
    return shown
