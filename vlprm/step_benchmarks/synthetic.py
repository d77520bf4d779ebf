"""Ground truth of the drawn tasks on a policy's candidates: a run folder of `eval.run` over built-in tasks.

A key is the item's id and the candidate's index. A step that does not parse as a claim about its scene has no label.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlprm.runs.pools import RECORDS, stored_pools
from vlprm.schema import Solution
from vlprm.step_benchmarks.labelled import LabelledSet, LabelledSolution, StepBenchmark
from vlprm.step_benchmarks.visual_process_bench import measured
from vlprm.tasks import TASKS, problem_by_id, refuse_other_tasks


def load(folder: Path) -> LabelledSet:
    """Read the run of a folder. UserError if it has not ended or has no pool."""
    pools = stored_pools(folder)
    refuse_other_tasks((problem_id for problem_id, _ in pools), TASKS)
    solutions = tuple(solution for pool in pools for solution in _of_pool(*pool))
    return LabelledSet(solutions, (folder / RECORDS,), open_drawn)


def _of_pool(problem_id: str, candidates: Sequence[Solution]) -> list[LabelledSolution]:
    problem = problem_by_id(problem_id, TASKS)
    truths = [TASKS[problem.task].verdicts(problem, candidate.steps) for candidate in candidates]
    return [
        LabelledSolution(
            f"{problem.id}/{i}", problem.id, problem.question, (problem.id,), candidate.steps,
            tuple(None if verdict is None else verdict.correct for verdict in truth), problem.task,
        )
        for i, (candidate, truth) in enumerate(zip(candidates, truths, strict=True))
    ]  # fmt: skip


def open_drawn(names: Sequence[str]) -> tuple[bytes, ...]:
    """`open_images` of drawn problems, whose names are their ids."""
    return tuple(image for name in names for image in problem_by_id(name, TASKS).images)


BENCHMARK = StepBenchmark(load, measured, "macro_f1", "its steps are left out")
