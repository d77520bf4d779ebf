"""Run folders of eval.run without a model, for the commands that read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from eval.runs.config import ProblemSetConfig, RunConfig
from eval.runs.jobs import Job
from eval.runs.problem_sets import open_problem_set
from eval.runs.worker import Record, found_record
from vlprm.runs.config import dump
from vlprm.runs.folder import open_run
from vlprm.runs.journal import Records, finish
from vlprm.runs.pools import POOL, RECORDS
from vlprm.schema import Problem, Solution
from vlprm.scoring.tree import StepScore
from vlprm.search import Cost, ScoredSolution, SearchConfig, SearchResult
from vlprm.serving.config import ModelConfig


def pool_record(
    at: int,
    problem: Problem,
    solutions: Iterable[Solution],
    scores: Sequence[Sequence[StepScore | None]] = (),
    whole: Sequence[float | None] | None = None,
) -> Record:
    """The record of the pool of a drawn problem."""
    job = Job(at, open_problem_set(ProblemSetConfig(problem.task, problems=1)), problem.id, "best_of_n", POOL)
    pool = tuple(ScoredSolution(s, tuple(scores[i]) if scores else ()) for i, s in enumerate(solutions))
    return found_record(job, problem, SearchResult(problem.id, "best_of_n", pool, [], Cost()), SearchConfig(), whole)


def write_run(folder: Path, records: Iterable[Record], inputs: Sequence[Path] = ()) -> Path:
    """Writes a finished run."""
    records = list(records)
    sets = tuple(ProblemSetConfig(name, problems=1) for name in dict.fromkeys(r["benchmark"] for r in records))
    open_run(folder, dump(RunConfig(folder, ModelConfig("policy"), sets, reward_model=ModelConfig("prm"))), 0, inputs)
    written = Records(folder / RECORDS)
    written.append(records)
    finish(written)
    return folder
