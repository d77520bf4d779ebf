"""A run of `eval.run` as problems of a page: the candidates of all methods side by side, and what each method chose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

from eval.runs.config import RunConfig
from eval.runs.pools import Record, candidate_of, known_selectors, pool_of
from eval.runs.problem_sets import open_problem_set
from vlprm.runs.config import parse
from vlprm.runs.folder import CONFIG
from vlprm.runs.journal import placed_records, record_at
from vlprm.runs.pools import POOL, RECORDS
from vlprm.schema import Aggregation, Solution, from_json
from vlprm.scoring.aggregate import AGGREGATIONS
from vlprm.tasks import Tasks, problem_by_id, task_of
from vlprm.viewer.views import QUESTION_LENGTH, CandidateView, Problems, ProblemView, StepView, facts


class Kept(NamedTuple):
    """What stays in memory of a record: where it is, and what the list of problems shows. `chosen` has the index of
    the candidate that each method chose; those that choose from a pool are several."""

    at: int
    place: int
    chosen: dict[str, int]
    answers: tuple[str | None, ...]
    right: tuple[bool | None, ...]


class Listed(NamedTuple):
    """A problem of the list, and what is kept of its records."""

    benchmark: str
    id: str
    question_type: str
    question: str
    gold: str | None
    images: int
    records: list[Kept]


class RunViews(Problems):
    """The records are read once for the list, and those of a problem again when it is opened. Benchmarks stand in the
    order in which they were named, their problems and methods in the order in which they were asked.

    Images come from where the run had them. A family from outside the package is one of the `tasks` that the user
    gives: no run folder decides what code is imported. UserError where it is not given.
    """

    def __init__(self, folder: Path, tasks: Tasks) -> None:
        self._path, self._tasks = folder / RECORDS, tasks
        config = parse(RunConfig, ["--config", str(folder / CONFIG)])
        own = [open_problem_set(benchmark) for benchmark in config.benchmarks if "." not in benchmark.name]
        self._sets = {one.name: one for one in own}
        found: dict[tuple[str, str], Listed] = {}
        for place, record in placed_records(self._path):
            if not record["failure"]:
                named = record["benchmark"], record["problem"]
                found.setdefault(named, listed(record)).records.append(kept(place, record, config.search.aggregation))
        for problem in found.values():
            problem.records.sort(key=lambda one: one.at)
        problems = sorted(found.values(), key=lambda one: one.records[0].at)
        order = list(dict.fromkeys(one.benchmark for one in problems))
        for name in set(order) - self._sets.keys():
            task_of(name, tasks)
        self._problems = sorted(problems, key=lambda one: order.index(one.benchmark))

    def __len__(self) -> int:
        return len(self._problems)

    def images(self, at: int) -> tuple[bytes, ...]:
        problem = self._problems[at]
        if problem.benchmark in self._sets:
            return self._sets[problem.benchmark].problem(problem.id).images
        return problem_by_id(problem.id, self._tasks).images

    def view(self, at: int) -> ProblemView:
        records = [record_at(self._path, kept.place) for kept in self._problems[at].records]
        pools = [[stored_view(stored) for stored in record["candidates"]] for record in records]
        return problem_view(self._problems[at], records[0]["question"], pools)

    def facts(self, at: int) -> dict[str, Any]:
        problem = self._problems[at]
        pools = [
            [CandidateView((), answer, right) for answer, right in zip(kept.answers, kept.right, strict=True)]
            for kept in problem.records
        ]
        return facts(problem_view(problem, problem.question, pools))


def listed(record: dict[str, Any]) -> Listed:
    return Listed(
        intern(record["benchmark"]),
        intern(record["problem"]),
        intern(record["question_type"]),
        record["question"][:QUESTION_LENGTH],
        record["gold"],
        record["images"],
        [],
    )


def kept(place: int, record: Record, aggregation: Aggregation) -> Kept:
    candidates = record["candidates"]
    return Kept(
        record["at"], place, chosen_of(record, aggregation),
        tuple(c["answer"] and intern(c["answer"]) for c in candidates), tuple(c["right"] for c in candidates),
    )  # fmt: skip


def chosen_of(record: Record, aggregation: Aggregation) -> dict[str, int]:
    """The candidate to which each method gives the largest share, the first of equals. A random choice is none; of the
    rules that make one reward of a solution's steps, the one that was fixed has a choice."""
    if record["method"] != POOL:
        shares = {intern(record["method"]): record["shares"]}
    else:
        pool = pool_of(record)
        others = {"random", *(f"prm_{rule}" for rule in AGGREGATIONS if rule != aggregation)}
        choosers = {n: choose for n, choose in known_selectors([pool], aggregation).items() if n not in others}
        shares = {name: choose(pool.candidates) for name, choose in choosers.items()}
    return {name: share.index(max(share)) for name, share in shares.items() if share}


def problem_view(problem: Listed, question: str, pools: Sequence[Sequence[CandidateView]]) -> ProblemView:
    """The candidates of all records side by side, with what each method chose among its own."""
    candidates: list[CandidateView] = []
    chosen: dict[str, int] = {}
    for record, pool in zip(problem.records, pools, strict=True):
        chosen |= {method: len(candidates) + i for method, i in record.chosen.items()}
        candidates += pool
    return ProblemView(
        problem.id, problem.benchmark, problem.question_type, question, problem.gold, problem.images,
        tuple(candidates), chosen,
    )  # fmt: skip


def stored_view(stored: Record) -> CandidateView:
    solution = from_json(Solution, stored["solution"])
    rewards = [score and score["correct"] for score in stored["scores"]]
    known = candidate_of(stored).rewards
    by_rule: dict[str, float | None] = {name: rule(known) for name, rule in AGGREGATIONS.items()} if known else {}
    whole = {} if stored["whole"] is None else {"whole": stored["whole"]}
    view = candidate_view(solution, rewards, stored["right"], stored["truth"])
    return replace(view, answer=stored["answer"], rewards=by_rule | whole)


def candidate_view(
    solution: Solution,
    rewards: Sequence[float | None] = (),
    right: bool | None = None,
    truth: Sequence[Record | None] | None = None,
) -> CandidateView:
    """A solution, and what is known of it: rewards of its steps where it was scored, and the truth of each."""
    nothing = [None] * len(solution.steps)
    known = [verdict or {} for verdict in truth or nothing]
    steps = [
        StepView(
            step.text, step.kind, reward, verdict.get("correct"), verdict.get("error_kind"), region=step.region
        )
        for step, reward, verdict in zip(solution.steps, rewards or nothing, known, strict=True)
    ]  # fmt: skip
    return CandidateView(tuple(steps), solution.answer, right, solution.stop)
