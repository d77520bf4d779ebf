"""Measure a run: write `results.json` and a self-contained page, and print tables.

    python -m eval.report --run runs/demo
    python -m eval.report --run runs/eval/builtin

Reads a run folder of eval.run, or the folder that holds the run folders of all stages (`eval`, `labels`, ...); then it
also measures the quality of the labels.
"""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.runs import curves, measures
from eval.runs.pools import Pool
from eval.runs.problem_sets import tasks_of
from eval.runs.results import Run, evaluation_of, read_runs
from eval.tables.config import ReportConfig
from eval.tables.terminal import print_tables
from eval.view import run_problems, run_sections
from vlprm.data.dataset import iterate_rows, row_paths
from vlprm.errors import UserError
from vlprm.runs.config import dump, run
from vlprm.runs.folder import open_run, refuse_other_inputs, seconds_of, timed, write_atomically
from vlprm.tasks import Tasks
from vlprm.viewer.page import render_page

log = logging.getLogger(__name__)


STAGES = ("trees", "judgements", "labels", "prm", "eval")


def main(config: ReportConfig) -> None:
    """Write `results.json` and `report.html` to the run folder, and print tables."""
    tasks = tasks_of(config.tasks)
    evaluation, labels = evaluation_of(config.run), config.run / "labels" / "dataset.parquet"
    if evaluation is None:
        raise UserError(
            f"{config.run} has no records.jsonl and no eval/records.jsonl; pass a run folder of eval.run, or the "
            "folder that holds the run folders of all stages"
        )
    if (config.run / "prm").is_dir():
        refuse_other_inputs(evaluation, [config.run / "prm"])
    gc.freeze()  # without it, each garbage collection below would scan all imported objects
    with timed(config.run, "report"):
        (found,) = read_runs([evaluation], pools=True, steps=True)
        results = measured(found)
        if labels.exists():
            results |= measured_labels(labels, tasks)
        if evaluation != config.run:
            open_run(config.run, dump(config), seed=0, holds_runs=True)
    folders = [*(config.run / stage for stage in STAGES), config.run]
    results["seconds"] = {stage: value for folder in folders for stage, value in seconds_of(folder).items()}
    problems = run_problems(config.run, tasks, config.tasks)
    write_atomically(config.run / "results.json", json.dumps(results, indent=2) + "\n")
    write_atomically(config.run / "report.html", render_page(config.run.name, run_sections(config.run), problems))
    print_tables(results)
    log.info("wrote %s and %s", config.run / "results.json", config.run / "report.html")


def measured(found: Run) -> dict[str, Any]:
    """The measures of a run's pools, as far as scores and ground truth are known. The aggregation was fixed in the
    run's config, before any result was seen."""
    pools, aggregation = list(found.pools.values()), found.aggregation
    searched = {name: [v for of in found.rows[name].values() for v in of.values()] for name in found.spent}
    problems = set(found.pools) | {key for spent in found.spent.values() for key in spent}
    results: dict[str, Any] = {
        "n_problems": len(problems),
        "n_candidates": max((len(pool.candidates) for pool in pools), default=0),
        "failed": found.failures.total(),
        "aggregation": aggregation,
        "no_answer": measures.no_results(pools),
        "selection": measures.selection(pools, aggregation, searched),
        "by_question_type": measures.by_question_type(pools, aggregation),
    }
    scored = f"prm_{aggregation}" in results["selection"]
    results["curves"] = curves.accuracy_curves(pools, aggregation, scored)
    if scored:
        results["differences"] = measures.differences(pools, aggregation)
        results["best_of_n"] = measures.mean_curve(pools, aggregation)
        if known := of_known_truth(pools):
            results["steps"] = measures.steps(known, aggregation)
            results["calibration"] = curves.reliability(known)
    return results


def of_known_truth(pools: Sequence[Pool]) -> list[Pool]:
    """The pools whose steps have a ground truth."""
    return [pool for pool in pools if pool.truth is not None]


def measured_labels(dataset: Path, tasks: Tasks) -> dict[str, Any]:
    """The quality of the labels, and what their sources of verdicts are."""
    meta = json.loads(next(iterate_rows(dataset))["meta"])
    sources = meta.get("reliability", {}).get("sources", {})
    judge = "; ".join(source["kind"] for source in sources.values()) or "not named in the dataset"
    return {"judge": judge, "labels": measures.label_quality(map(row_paths, iterate_rows(dataset)), tasks)}


if __name__ == "__main__":
    run(main, ReportConfig)
