"""Cost of 100,000 records of `eval.run`: a table of each layout, a page in one file, and the start of a server.

    python -m tests.perf.table

A record is a problem with a pool of 8 candidates, so there are 800,000 candidates. The solutions are those of 1,000
problems, repeated with new rewards. Each command runs in a process of its own, and its seconds include the start of
Python.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from eval import view
from eval.runs.config import ProblemSetConfig, RunConfig
from eval.runs.jobs import Job
from eval.runs.problem_sets import open_problem_set
from eval.runs.worker import Record, found_record
from eval.table import main as print_table
from eval.tables.config import Layout, TableConfig
from tests.perf.cost import in_a_process
from tests.perf.pools import scores_of, solutions_of
from tests.perf.results import write_result
from vlprm.runs.config import dump
from vlprm.runs.folder import open_run, write_atomically
from vlprm.runs.journal import Records, finish
from vlprm.search import Cost, ScoredSolution, SearchConfig, SearchResult
from vlprm.serving.config import ModelConfig
from vlprm.tasks import TASKS
from vlprm.viewer.page import render_page
from vlprm.viewer.serve import PageServer

RECORDS, CANDIDATES, KINDS = 100_000, 8, 1_000
SECONDS, MEGABYTES = 30, 2_048


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="table-"))
    try:
        write_run(folder)
        size = (folder / "records.jsonl").stat().st_size
        rows = [
            {**in_a_process(stage, folder), "records": RECORDS, "gigabytes": round(size / 1e9, 2)}
            for stage in (methods, aggregations, curve, page, served)
        ]
    finally:
        shutil.rmtree(folder)
    headline = {
        "seconds": (max(row["seconds"] for row in rows), SECONDS),
        "cpu_seconds": (max(row["cpu_seconds"] for row in rows), SECONDS),
        "peak_mb": (max(row["peak_mb"] for row in rows), MEGABYTES),
    }
    write_result("table", rows, headline)


def write_run(folder: Path) -> None:
    sets = tuple(ProblemSetConfig(name, problems=RECORDS // len(TASKS)) for name in TASKS)
    config = RunConfig(folder, ModelConfig("builtin/policy"), sets, reward_model=ModelConfig("builtin/backbone"))
    open_run(folder, dump(config), 0)
    with (folder / "records.jsonl").open("w") as file:
        for i, one in enumerate(sets):
            file.writelines(json.dumps(record) + "\n" for record in records_of(one, i * one.problems))
    finish(Records(folder / "records.jsonl"))


def records_of(config: ProblemSetConfig, first: int) -> Iterator[Record]:
    """A benchmark's records: those of its first problems, repeated with other rewards."""
    rng, one = random.Random(config.name), open_problem_set(config)
    kinds = [record_of(Job(0, one, i, "best_of_n", "pool"), rng) for i in one.ids[: KINDS // len(TASKS)]]
    for at, problem_id in enumerate(one.ids):
        record = kinds[at % len(kinds)]
        for candidate in record["candidates"]:
            candidate["scores"] = [asdict(s) for s in scores_of(len(candidate["solution"]["steps"]), rng)]
        yield {**record, "key": f"{one.name}/{problem_id}/pool", "at": first + at, "problem": problem_id}


def record_of(job: Job, rng: random.Random) -> Record:
    problem = job.problem_set.problem(job.problem_id)
    pool = tuple(ScoredSolution(solution) for solution in solutions_of(problem, CANDIDATES, rng))
    cost = Cost(policy_sampled=600, policy_read=300, scorer_read=900, policy_calls=8, scorer_calls=8, seconds=3.0)
    return found_record(job, problem, SearchResult(problem.id, job.method, pool, [], cost), SearchConfig())


def methods(folder: Path) -> None:
    printed(folder, "methods")


def aggregations(folder: Path) -> None:
    printed(folder, "aggregations")


def curve(folder: Path) -> None:
    printed(folder, "curve")


def printed(folder: Path, layout: Layout) -> None:
    print_table(TableConfig((folder,), layout))


def page(folder: Path) -> None:
    """The page of the first thousand problems, as a file."""
    write_atomically(folder / "report.html", render_page("100,000", [], view.run_problems(folder, {})))


def served(folder: Path) -> None:
    """Starts a server, and asks for its first answers."""
    with PageServer(0, "100,000", view.run_sections(folder), view.run_problems(folder, {})) as server:
        for path in ("/", "/facts", "/problem", "/image"):
            assert server.answer(path, lambda name: {"at": RECORDS - 1, "count": 2000}.get(name, 0))


if __name__ == "__main__":
    main()
