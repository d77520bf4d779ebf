"""First-error detection on drawn problems, by the protocol of PRISM-Bench (arXiv 2510.23594): a solution has exactly
one injected error, whose step is to be found.

A folder is a run of `eval.run` over built-in tasks, of which only the problems are taken. The family writes a solution
of each, in which one claim, drawn by the problem's id, has the value of a plausible confusion; later steps follow from
it and have no label. A problem whose answer alone could be wrong is left out.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlprm.runs.pools import RECORDS, stored_pools
from vlprm.schema import Problem
from vlprm.step_benchmarks.labelled import Calls, LabelledSet, LabelledSolution, StepBenchmark
from vlprm.step_benchmarks.process_bench import first_wrong
from vlprm.step_benchmarks.synthetic import open_drawn
from vlprm.tasks import TASKS, problem_by_id, refuse_other_tasks
from vlprm.tasks.slips import slipped
from vlprm.zoom.execute import executed_steps


def load(folder: Path) -> LabelledSet:
    """One solution for each problem of the run. UserError if it has not ended or has no pool."""
    ids = [problem_id for problem_id, _ in stored_pools(folder)]
    refuse_other_tasks(ids, TASKS)
    made = (with_one_error(problem_by_id(problem_id, TASKS)) for problem_id in ids)
    return LabelledSet(tuple(one for one in made if one), (folder / RECORDS,), open_drawn)


def with_one_error(problem: Problem) -> LabelledSolution | None:
    """A solution with one error before its answer step; None if no claim of it can be wrong."""
    family, found = TASKS[problem.task], []
    for texts in slipped(family, problem.meta["scene"]):
        steps = executed_steps(problem, texts)
        verdicts = family.verdicts(problem, steps)
        first = first_wrong([None if verdict is None else verdict.correct for verdict in verdicts])
        if 0 <= first < len(steps) - 1:
            known = [None if verdict is None else True for verdict in verdicts[:first]]
            found.append((steps, (*known, False, *[None] * (len(steps) - first - 1))))
    if not found:
        return None
    steps, correct = random.Random(problem.id).choice(found)
    return LabelledSolution(problem.id, problem.id, problem.question, (problem.id,), steps, correct, problem.task)


def measured(solutions: Sequence[LabelledSolution], calls: Sequence[Calls]) -> dict[str, Any]:
    """Per family and in all, in per cent: how often the first step called wrong is the injected error (`accuracy`),
    comes before it (`too_early`), or after it or never (`too_late`). No result is none of them."""
    places: dict[str, list[int | None]] = {}
    for solution, called in zip(solutions, calls, strict=True):
        place = None
        if called is not None:
            first, wrong = first_wrong(called), first_wrong(solution.correct)
            place = (first if first >= 0 else len(called)) - wrong
        places.setdefault(solution.group, []).append(place)
    by_group = {family: _shares(found) for family, found in places.items()}
    return _shares([place for found in places.values() for place in found]) | {"by_group": by_group}


def _shares(places: Sequence[int | None]) -> dict[str, float]:
    found = [place for place in places if place is not None]
    counts = {
        "accuracy": sum(place == 0 for place in found),
        "too_early": sum(place < 0 for place in found),
        "too_late": sum(place > 0 for place in found),
    }
    return {"n": len(places)} | {name: 100 * count / len(places) for name, count in counts.items()}


BENCHMARK = StepBenchmark(load, measured, "accuracy", "it counts as a miss, in the denominator")
