"""A scored pool and a labelled dataset -> `results.json`, a table in the terminal, and one self-contained page.

    python -m eval.report --run runs/demo

Reads a run folder whose stages are its sub-folders: trees, labels, prm, candidates, rewards.
"""

from __future__ import annotations

import gc
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval import measure
from eval.pool import Pool, PoolRun
from eval.terminal import print_tables
from eval.view import run_problems, run_sections
from vlprm.config import dump, run
from vlprm.dataset import LabelledPath, read_rows, row_paths
from vlprm.profile import load_profile
from vlprm.records import open_run, seconds_of, timed, write_atomically
from vlprm.schema import Aggregation
from vlprm.tasks import TASKS, Tasks, load_tasks
from vlprm.viewer.page import render_page

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportConfig:
    """Measure and show a run.

    Args:
        run: folder whose stages are its sub-folders; the report is written beside them.
        tasks: task names or module paths, as they were given to the stages before.
    """

    run: Path
    tasks: tuple[str, ...] = tuple(TASKS)


READ = ("labels", "prm", "candidates", "rewards")


def main(config: ReportConfig) -> None:
    tasks = load_tasks(config.tasks)
    if missing := [stage for stage in READ if not (config.run / stage).is_dir()]:
        raise ValueError(
            f"{config.run} has no folder {', '.join(missing)}; give the folder that holds those of all stages"
        )
    gc.freeze()  # what the imports left would be walked again and again while the pools are made
    with timed(config.run, "report"):
        # The reward model's profile names the aggregation, which was fixed before any result was seen.
        aggregation = load_profile(config.run / "prm").aggregation
        pools = list(PoolRun(config.run, tasks))
        trees = [row_paths(row) for row in read_rows(config.run / "labels" / "dataset.parquet")]
        results = measure_all(pools, trees, aggregation, tasks)
        open_run(config.run, dump(config), seed=0)
    results["seconds"] = stage_seconds(config.run)
    write_atomically(config.run / "results.json", json.dumps(results, indent=2) + "\n")
    problems = run_problems(config.run, tasks)
    write_atomically(config.run / "report.html", render_page(config.run.name, run_sections(config.run), problems))
    print_tables(results)
    log.info("results in %s, page in %s", config.run / "results.json", config.run / "report.html")


def measure_all(
    pools: list[Pool], trees: list[list[LabelledPath]], aggregation: Aggregation, tasks: Tasks
) -> dict[str, Any]:
    return {
        "n_problems": len(pools),
        "n_candidates": len(pools[0].candidates),
        "aggregation": aggregation,
        "judge": trees[0][0].problem.meta.get("judge", "not named in the dataset"),
        "no_answer": measure.no_results(pools),
        "selection": measure.selection(pools, aggregation),
        "differences": measure.differences(pools, aggregation),
        "best_of_n": measure.best_of_n(pools, aggregation),
        "by_question_type": measure.by_question_type(pools, aggregation),
        "steps": measure.steps(pools, aggregation),
        "labels": measure.label_quality(trees, tasks),
    }


def stage_seconds(folder: Path) -> dict[str, float]:
    """Seconds of each stage, over all the runs that it took."""
    folders = [*(folder / stage for stage in ("trees", "judgements", *READ)), folder]
    return {name: value for stage in folders for name, value in seconds_of(stage).items()}


if __name__ == "__main__":
    run(main, ReportConfig)
