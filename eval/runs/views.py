"""Problems of a run on a page: the candidates of all methods next to each other, and each method's choice."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

from eval.runs.config import RunConfig
from eval.runs.pools import Record, known_selectors, pool_of, step_scores
from eval.runs.problem_sets import open_problem_set
from vlprm.runs.config import parse
from vlprm.runs.folder import CONFIG
from vlprm.runs.journal import placed_records, record_at
from vlprm.runs.pools import POOL, RECORDS
from vlprm.schema import Aggregation, Solution, from_json
from vlprm.scoring.aggregate import AGGREGATIONS
from vlprm.search.select import rewards_of
from vlprm.tasks import Tasks, problem_by_id, task_of
from vlprm.viewer.views import QUESTION_LENGTH, CandidateView, Problems, ProblemView, StepView, facts


class Kept(NamedTuple):
    """The part of a record that stays in memory: its place in the file, and what the list of problems shows. `chosen`:
    index of the candidate that each method of the record chose."""

    at: int
    place: int
    chosen: dict[str, int]
    answers: tuple[str | None, ...]
    right: tuple[bool | None, ...]


class Listed(NamedTuple):
    """A problem in the list, with its records."""

    benchmark: str
    id: str
    question_type: str
    question: str
    gold: str | None
    images: int
    records: list[Kept]


class RunViews(Problems):
    """Reads all records once for the list, and a problem's records again when it is opened. Benchmarks, problems and
    methods keep the order of the run.

    Images come from the run's own sources. A task family from outside the package must be in `tasks`, and the path of a
    benchmark's module in `named`, so that no run folder decides which code is imported; UserError if it is not.
    """

    def __init__(self, folder: Path, tasks: Tasks, named: Container[str] = ()) -> None:
        self._path, self._tasks = folder / RECORDS, tasks
        config = parse(RunConfig, ["--config", str(folder / CONFIG)])
        ours = [b for b in config.benchmarks if b.problem_file or "." not in b.name or b.name in named]
        self._sets = {one.name: one for one in map(open_problem_set, ours)}
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
        """The problem's images, as encoded files."""
        problem = self._problems[at]
        if problem.benchmark in self._sets:
            return self._sets[problem.benchmark].problem(problem.id).images
        return problem_by_id(problem.id, self._tasks).images

    def view(self, at: int) -> ProblemView:
        """The problem with the candidates of all its records."""
        records = [record_at(self._path, kept.place) for kept in self._problems[at].records]
        pools = [[stored_view(stored) for stored in record["candidates"]] for record in records]
        return problem_view(self._problems[at], records[0]["question"], pools)

    def facts(self, at: int) -> dict[str, Any]:
        """The problem's entry in the list."""
        problem = self._problems[at]
        pools = [
            [CandidateView((), answer, right) for answer, right in zip(kept.answers, kept.right, strict=True)]
            for kept in problem.records
        ]
        return facts(problem_view(problem, problem.question, pools))


def listed(record: dict[str, Any]) -> Listed:
    """The list entry of a record's problem, still without records."""
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
    """The part of a record that stays in memory."""
    candidates = record["candidates"]
    return Kept(
        record["at"], place, chosen_of(record, aggregation),
        tuple(c["answer"] and intern(c["answer"]) for c in candidates), tuple(c["right"] for c in candidates),
    )  # fmt: skip


def chosen_of(record: Record, aggregation: Aggregation) -> dict[str, int]:
    """Index of the candidate with the largest share of each method, the first if tied. Random choice and other
    aggregations than the run's are left out."""
    if record["method"] != POOL:
        shares = {intern(record["method"]): record["shares"]}
    else:
        pool = pool_of(record)
        others = {"random", *(f"prm_{rule}" for rule in AGGREGATIONS if rule != aggregation)}
        choosers = {n: choose for n, choose in known_selectors([pool], aggregation).items() if n not in others}
        shares = {name: choose(pool.candidates) for name, choose in choosers.items()}
    return {name: share.index(max(share)) for name, share in shares.items() if share}


def problem_view(problem: Listed, question: str, pools: Sequence[Sequence[CandidateView]]) -> ProblemView:
    """The candidates of all records in one list, with each method's choice."""
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
    """A stored candidate with its rewards by every aggregation."""
    solution = from_json(Solution, stored["solution"])
    rewards = [score and score["correct"] for score in stored["scores"]]
    known = rewards_of(step_scores(stored))
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
    """A solution with the rewards and the ground truth of its steps, if known."""
    nothing = [None] * len(solution.steps)
    known = [verdict or {} for verdict in truth or nothing]
    steps = [
        StepView(
            step.text, step.kind, reward, verdict.get("correct"), verdict.get("error_kind"), region=step.region
        )
        for step, reward, verdict in zip(solution.steps, rewards or nothing, known, strict=True)
    ]  # fmt: skip
    return CandidateView(tuple(steps), solution.answer, right, solution.stop)
