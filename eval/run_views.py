"""A run of `eval.run` as problems of a page: the candidates of all methods side by side, and what each method chose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eval.asked import Asked, open_asked
from eval.run import RunConfig
from eval.table import candidate
from vlprm.config import parse
from vlprm.records import CONFIG, placed_records, record_at
from vlprm.schema import Problem, Solution, from_json
from vlprm.scoring import AGGREGATIONS
from vlprm.viewer.views import CandidateView, Problems, ProblemView, StepView

RECORDS = "records.jsonl"


class RunViews(Problems):
    """In memory are the places of the records alone. Images come from where the run had them."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / RECORDS
        config = parse(RunConfig, ["--config", str(folder / CONFIG)])
        self._asked: dict[str, Asked] = {asked.name: asked for asked in map(open_asked, config.benchmarks)}
        places: dict[tuple[str, str], list[int]] = {}
        for place, record in placed_records(self._path):
            if not record["failure"]:
                places.setdefault((record["benchmark"], record["problem"]), []).append(place)
        self._problems, self._places = list(places), list(places.values())

    def __len__(self) -> int:
        return len(self._problems)

    def images(self, at: int) -> tuple[bytes, ...]:
        return self._problem(at).images

    def view(self, at: int) -> ProblemView:
        problem, candidates, chosen = self._problem(at), [], {}
        records = [record_at(self._path, place) for place in self._places[at]]
        for record in records:
            if record["shares"]:
                chosen[record["method"]] = len(candidates) + record["shares"].index(max(record["shares"]))
            candidates += [candidate_view(stored) for stored in record["candidates"]]
        return ProblemView(
            problem.id, problem.task, records[0]["question_type"], problem.question, records[0]["gold"],
            len(problem.images), tuple(candidates), chosen,
        )  # fmt: skip

    def _problem(self, at: int) -> Problem:
        benchmark, problem_id = self._problems[at]
        return self._asked[benchmark].problem(problem_id)


def candidate_view(stored: dict[str, Any]) -> CandidateView:
    solution, rewards = from_json(Solution, stored["solution"]), candidate(stored).rewards
    scores = stored["scores"] or [None] * len(solution.steps)
    steps = [
        StepView(step.text, step.kind, score and score["correct"], region=step.region)
        for step, score in zip(solution.steps, scores, strict=True)
    ]
    by_rule = {name: rule(rewards) for name, rule in AGGREGATIONS.items()} if rewards else {}
    return CandidateView(tuple(steps), stored["answer"], stored["right"], solution.stop, by_rule)
