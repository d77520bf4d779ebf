"""A reward model against the vote on the demo's pool, in two worlds.

    make demo && make bench NAME=vote

*Stranger*: the demo's reward model, whose backbone is larger than the policy and was taught otherwise. *Self*: the same
recipe and labels on the policy's own weights, which share its blind spots. Both score the same candidates, so the vote
is the same row. The effects that the claims read are those of three seeds of the recipe, except at equal FLOPs. About a
minute, and the time of `tests.perf.aggregations`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from eval.compare import main as compare
from eval.runs import measures
from eval.tables.config import CompareConfig
from tests.perf import worlds
from tests.perf.aggregations import rightness
from tests.perf.results import FOLDER, Effect, points, write_result
from tests.perf.worlds import World
from vlprm.runs.folder import json_object

WORLDS: dict[World, str] = {"stranger": "demo", "self": "self"}  # the names of their reward models in the tables


def main() -> None:
    compare(CompareConfig(tuple(worlds.RUNS.values()), FOLDER / "vote"))
    results = json_object(FOLDER / "vote/results.json")
    write_result("vote", rows_of(results), headline(results), effects(results))


def effects(results: dict[str, Any]) -> dict[str, Effect]:
    """What the claims compare: best of N less the vote, with the same candidates and for the vote's FLOPs."""
    runs = {world: worlds.scored_pools(world) for world in WORLDS}
    best_SP = {world: rightness(of)["min"] for world, of in runs.items()}
    found = {"stranger less self": points(best_SP["stranger"] - best_SP["self"])}
    for world, model in WORLDS.items():
        others = measures.rightness(runs[world][0], "min")
        for name, selector in (("vote", "majority"), ("likelihood", "likeliest")):
            found[f"{world} less {name}"] = points(best_SP[world] - 100 * np.array(others[selector]))
        for row in results["equal_cost"]:
            if (row["title"], row["unit"]) == (f"best of N by {model}", "FLOPs"):
                ends = row["at_cost_of_vote"]["difference"]
                found[f"{world} less vote at equal FLOPs"] = Effect(
                    *(100 * end for end in ends), "points", results["problems"]
                )
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
