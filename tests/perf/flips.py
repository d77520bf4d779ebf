"""Does the demo's reward model look? Flip accuracy on drawn pairs of images, and that of its backbone's likelihood.

    make demo && make bench NAME=flips

Each pair differs in one fact of the scene, so that exactly one step of a solution is right on one image alone
(`vlprm.tasks.flips`). Finished work is not repeated. About five minutes on two cores.
"""

from __future__ import annotations

from typing import Any

from eval.flips import main as measure
from eval.step_scores.config import FlipsConfig
from tests.perf.datasets import DEMO
from tests.perf.results import FOLDER, write_result
from vlprm.runs.folder import json_object
from vlprm.scoring.config import ScorerConfig
from vlprm.serving.config import ModelConfig

PROBLEMS = 100
SCORERS = {
    "demo": (ModelConfig(str(DEMO / "prm")), ScorerConfig()),
    "likelihood": (ModelConfig("builtin/backbone"), ScorerConfig("likelihood")),
}


def main() -> None:
    rows, headline = [], {}
    for name, (model, scorer) in SCORERS.items():
        folder = FOLDER / "flips" / name
        measure(FlipsConfig(folder, (model,), scorer, problems=PROBLEMS))
        results = json_object(folder / "results.json")
        rows += rows_of(name, results)
        headline[f"{name}_flip_accuracy"] = (results["groups"]["all"]["flip"]["value"], 0.9)
        headline[f"{name}_right_and_wrong_at_threshold"] = (
            results["groups"]["all"]["both_at_threshold"]["value"],
            0.74,
        )
    write_result("flips", rows, headline)


def rows_of(name: str, results: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"scorer": name, "pairs_by": group, **measures} for group, measures in results["groups"].items()]


if __name__ == "__main__":
    main()
