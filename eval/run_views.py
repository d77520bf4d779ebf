"""A run of `eval.run` as problems of a page: the candidates of all methods side by side, and what each method chose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

from eval.asked import Asked, open_asked
from eval.run import RunConfig
from eval.run_results import candidate
from vlprm.config import parse
from vlprm.records import CONFIG, placed_records, record_at
from vlprm.schema import Solution, from_json
from vlprm.scoring import AGGREGATIONS
from vlprm.viewer.views import QUESTION_LENGTH, CandidateView, Problems, ProblemView, StepView, facts

RECORDS = "records.jsonl"


class Kept(NamedTuple):
    """What stays in memory of a record: where it is, and what the list of problems shows."""

    at: int
    place: int
    method: str
    chosen: int | None
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
    """The records are read once for the list, and those of a problem again when it is opened. Problems and methods
    stand in the order in which they were asked. Images come from where the run had them."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / RECORDS
        config = parse(RunConfig, ["--config", str(folder / CONFIG)])
        self._asked: dict[str, Asked] = {asked.name: asked for asked in map(open_asked, config.benchmarks)}
        found: dict[tuple[str, str], Listed] = {}
        for place, record in placed_records(self._path):
            if not record["failure"]:
                named = record["benchmark"], record["problem"]
                found.setdefault(named, listed(record)).records.append(kept(place, record))
        for problem in found.values():
            problem.records.sort()
        self._problems = sorted(found.values(), key=lambda problem: problem.records[0].at)

    def __len__(self) -> int:
        return len(self._problems)

    def images(self, at: int) -> tuple[bytes, ...]:
        return self._asked[self._problems[at].benchmark].problem(self._problems[at].id).images

    def view(self, at: int) -> ProblemView:
        records = [record_at(self._path, kept.place) for kept in self._problems[at].records]
        pools = [[candidate_view(stored) for stored in record["candidates"]] for record in records]
        return problem_view(self._problems[at], records[0]["question"], pools)

    def facts(self, at: int) -> dict[str, Any]:
        problem = self._problems[at]
        pools = [
            [CandidateView((), answer, right) for answer, right in zip(kept.answers, kept.right, strict=True)]
            for kept in problem.records
        ]
        return facts(problem_view(problem, problem.question, pools))


def listed(record: dict[str, Any]) -> Listed:
    question = record["question"][:QUESTION_LENGTH]
    return Listed(
        *(intern(record[name]) for name in ("benchmark", "problem", "question_type")), question, record["gold"],
        record["images"], []
    )  # fmt: skip


def kept(place: int, record: dict[str, Any]) -> Kept:
    shares, candidates = record["shares"], record["candidates"]
    return Kept(
        record["at"], place, intern(record["method"]), shares.index(max(shares)) if shares else None,
        tuple(c["answer"] and intern(c["answer"]) for c in candidates), tuple(c["right"] for c in candidates),
    )  # fmt: skip


def problem_view(problem: Listed, question: str, pools: Sequence[Sequence[CandidateView]]) -> ProblemView:
    """The candidates of all records side by side, with what each method chose among its own."""
    candidates: list[CandidateView] = []
    chosen = {}
    for record, pool in zip(problem.records, pools, strict=True):
        if record.chosen is not None:
            chosen[record.method] = len(candidates) + record.chosen
        candidates += pool
    return ProblemView(
        problem.id, problem.benchmark, problem.question_type, question, problem.gold, problem.images,
        tuple(candidates), chosen,
    )  # fmt: skip


def candidate_view(stored: dict[str, Any]) -> CandidateView:
    solution, rewards = from_json(Solution, stored["solution"]), candidate(stored).rewards
    scores = stored["scores"] or [None] * len(solution.steps)
    steps = [
        StepView(step.text, step.kind, score and score["correct"], region=step.region)
        for step, score in zip(solution.steps, scores, strict=True)
    ]
    by_rule = {name: rule(rewards) for name, rule in AGGREGATIONS.items()} if rewards else {}
    return CandidateView(tuple(steps), stored["answer"], stored["right"], solution.stop, by_rule)
