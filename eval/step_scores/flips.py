"""Measures of the rewards of flipped steps (`vlprm.tasks.flips`)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from eval.step_scores.results import interval_text
from vlprm.metrics import grouped_interval
from vlprm.viewer.tables import plain_table

THRESHOLD = 0.5  # a step with at least this reward is called right
Record = Mapping[str, Any]

# What the reward on the right image is compared with.
OTHERS = {
    "flip": "the step on the image with one fact changed",
    "premise": "the step reworded to what that image shows",
    "removed": "no image",
    "swapped": "the image of another problem",
}


def measured(records: Sequence[Record]) -> dict[str, Any]:
    """The content of `results.json`: measures of all pairs, by kind of step and by family, with 95% intervals over
    problems. Pairs without a result are counted by cause and left out."""
    known = [record for record in records if not record["no_result"]]
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in known:
        for group in ("all", record["kind"], record["task"]):
            groups[group].append(record)
    causes = Counter(record["no_result"] for record in records if record["no_result"])
    return {"no_result": dict(causes), "groups": {name: _of_group(group) for name, group in groups.items()}}


def _of_group(records: Sequence[Record]) -> dict[str, Any]:
    """`flip`, `premise`, `removed` and `swapped`: how often the reward of the step on the right image is larger, equal
    ones counting half. `both_at_threshold`: how often the step is called right on the right image and wrong on the
    wrong one. `drop`: the mean difference of the two rewards."""
    measures: dict[str, Callable[[Mapping[str, float]], float | None]] = {
        **{name: _larger(name) for name in OTHERS},
        "both_at_threshold": lambda r: float(r["right"] >= THRESHOLD > r["flip"]),
        "right_called_right": lambda r: float(r["right"] >= THRESHOLD),
        "wrong_called_wrong": lambda r: float(r["flip"] < THRESHOLD),
        "drop": lambda r: r["right"] - r["flip"],
    }
    found: dict[str, Any] = {"pairs": len(records)}
    for name, measure in measures.items():
        of_problem: dict[str, list[float]] = defaultdict(list)
        for record in records:
            if (value := measure(record["rewards"])) is not None:
                of_problem[record["problem"]].append(value)
        values = [value for group in of_problem.values() for value in group]
        if values:
            ci = list(grouped_interval(list(of_problem.values())))
            found[name] = {"value": sum(values) / len(values), "ci": ci, "of": len(values)}
    return found


def _larger(name: str) -> Callable[[Mapping[str, float]], float | None]:
    def measure(rewards: Mapping[str, float]) -> float | None:
        right, other = rewards["right"], rewards.get(name)
        return None if other is None else 0.5 if right == other else float(right > other)

    return measure


def flips_table(results: Mapping[str, Any]) -> Table:
    """A row for each group of pairs."""
    columns = {
        "flip": "flip accuracy",
        "both_at_threshold": "right and wrong at 0.5",
        "premise": "reworded",
        "removed": "removed",
        "swapped": "swapped",
        "drop": "mean drop",
    }
    table = plain_table("Does the reward follow the image? (95% interval)", "pairs by", "pairs", *columns.values())
    for group, measures in results["groups"].items():
        cells = (measures.get(name) for name in columns)
        shown = (f"{cell['value']:.3f} ({interval_text(cell['ci'])})" if cell else "" for cell in cells)
        table.add_row(group, str(measures["pairs"]), *shown)
    return table
