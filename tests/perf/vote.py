"""A reward model against the vote on the demo's pool, in two worlds.

    make demo && make bench NAME=vote

*Stranger*: the demo's reward model, whose backbone is larger than the policy and was taught otherwise. *Self*: the same
recipe and labels on the policy's own weights, which share its blind spots. Both score the same candidates, so the vote
is the same row. About a minute.
"""

from __future__ import annotations

from typing import Any

from eval.compare import main as compare
from eval.tables.config import CompareConfig
from tests.perf.aggregations import RUNS, rightness
from tests.perf.datasets import DEMO
from tests.perf.results import FOLDER, Effect, points, write_result
from vlprm.runs.folder import json_object

WORLDS = {"stranger": "demo", "self": "self"}  # the names of their reward models in the tables


def main() -> None:
    compare(CompareConfig((DEMO / "eval", DEMO / "self/eval"), FOLDER / "vote"))
    results = json_object(FOLDER / "vote/results.json")
    write_result("vote", rows_of(results), headline(results), effects(results))


def effects(results: dict[str, Any]) -> dict[str, Effect]:
    """What the claims compare: best of N less the vote, with the same candidates and for the vote's FLOPs."""
    found = {}
    for world, model in WORLDS.items():
        title = f"best of N by {model}"
        differences = {f"{world} less vote": results["rows"][title]["difference"]}
        for row in results["equal_cost"]:
            if (row["title"], row["unit"]) == (title, "FLOPs"):
                differences[f"{world} less vote at equal FLOPs"] = row["at_cost_of_vote"]["difference"]
        for key, ends in differences.items():
            found[key] = Effect(*(100 * end for end in ends), "points", results["problems"])
    stranger, self_ = (rightness(RUNS[world])["min"] for world in WORLDS)
    found["stranger less self"] = points(stranger - self_)
    return found


def rows_of(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per way to choose: accuracy, the difference to the vote, by agreement, and phi."""
    errors = results["shared_errors"]
    return [
        {
            "chosen_by": title,
            **{name: value for name, value in row.items() if name != "by_benchmark"},
            "by_agreement": {one["agreement"]: one["rows"].get(title) for one in results["strata"]},
            "errors_shared_with_the_vote": errors.get(title),
        }
        for title, row in results["rows"].items()
    ] + [{"at_equal_cost": results["equal_cost"], "lengths": results["lengths"]}]


def headline(results: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """In each world, best of N less the vote: with the same candidates, and for the vote's tokens and FLOPs."""
    found = {}
    for world, model in WORLDS.items():
        title = f"best of N by {model}"
        found[f"{world}_best_minus_vote"] = (results["rows"][title]["difference"][0], 0.0)
        for row in results["equal_cost"]:
            if row["title"] == title:
                key = f"{world}_best_minus_vote_equal_{row['unit'].lower()}"
                found[key] = (row["at_cost_of_vote"]["difference"][0], 0.0)
    return found


if __name__ == "__main__":
    main()
