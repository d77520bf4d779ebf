"""Problem sets of a run: published benchmarks, drawn task families and your own files, with their rules for answers."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from eval.runs.config import ProblemSetConfig
from vlprm import answers
from vlprm.answers import is_correct
from vlprm.benchmarks import BENCHMARKS, is_benchmark_module, load_benchmark
from vlprm.benchmarks.benchmark import Benchmark, Item, Output, Reading, as_problem, items_from_hub, load_items
from vlprm.data.problem_file import ProblemFile
from vlprm.errors import UserError
from vlprm.schema import Problem, Solution, Step, Verdict
from vlprm.tasks import TASKS, Tasks, load_task, load_tasks
from vlprm.tasks.synthetic import SyntheticFamily


@dataclass(frozen=True)
class ProblemSet:
    """The problems of one benchmark by id, the rule that extracts and judges answers, and the ground truth of steps if
    the task has it (None for a step that does not parse)."""

    name: str
    ids: tuple[str, ...]
    problem: Callable[[str], Problem]
    read: Callable[[Problem, Solution], Reading]
    truth: Callable[[Problem, Sequence[Step]], list[Verdict | None]] | None = None


def open_problem_set(config: ProblemSetConfig) -> ProblemSet:
    """Open a problem set. UserError if the name is unknown or the folder incomplete."""
    known = [*BENCHMARKS, *TASKS]
    if config.problem_file is not None:
        if config.name in known:
            raise UserError(f"{config.problem_file} holds your own problems; choose a name that is not taken")
        what = f"{config.problem_file}, a file of your own problems"
        _refuse_unread(config, what, "data", "subset", "style", "split")
        return _own(ProblemFile(config.problem_file), config)
    if config.name in BENCHMARKS or is_benchmark_module(config.name):
        _refuse_unread(config, f"{config.name}, a published benchmark", "split")
        return _benchmark(load_benchmark(config.name), config)
    if config.name not in TASKS and "." not in config.name:
        nearest = difflib.get_close_matches(config.name, known, n=1)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise UserError(
            f"unknown benchmark {config.name!r}; {hint}known: {', '.join(known)}; for problems of your own, set "
            "problem_file too"
        )
    _refuse_unread(config, f"{config.name}, a drawn task family", "data", "subset", "style")
    return _drawn(load_task(config.name), config)


def _refuse_unread(config: ProblemSetConfig, what: str, *names: str) -> None:
    """UserError if a field has a value that this kind of problem set does not read."""
    defaults = {field.name: field.default for field in fields(config)}
    if given := [name for name in names if getattr(config, name) != defaults[name]]:
        raise UserError(f"{what}, does not read {' and '.join(given)}; remove it")


def tasks_of(names: Sequence[str]) -> Tasks:
    """The task families among these names; the others are paths of modules with a benchmark."""
    families = [name for name in names if not is_benchmark_module(name)]
    return load_tasks(families) if families or not names else {}


def _own(file: ProblemFile, config: ProblemSetConfig) -> ProblemSet:
    return ProblemSet(config.name, tuple(file.ids[: config.problems or None]), file.problem, _exact)


def _benchmark(benchmark: Benchmark, config: ProblemSetConfig) -> ProblemSet:
    if config.data is None:
        items, folder = items_from_hub(benchmark, config.subset), Path()
    else:
        items, folder = load_items(benchmark, config.data, config.subset), config.data
    ids = tuple(items)[: config.problems or None]
    return ProblemSet(
        benchmark.name,
        ids,
        lambda item_id: as_problem(benchmark, items[item_id], folder, config.style),
        lambda problem, solution: _official(benchmark, items[problem.id], solution),
    )


def _official(benchmark: Benchmark, item: Item, solution: Solution) -> Reading:
    text = answer_text(solution)
    return Reading(None) if text is None else benchmark.rules["official"](item, Output(item.id, text))


def answer_text(solution: Solution) -> str | None:
    """The text for an authors' rule: the tagged answer if there is one, otherwise the whole solution; None if it was
    cut short or failed. The rules expect prose, and would take letters and numbers of any step for answers."""
    return answers.answer_text(solution.steps) if solution.stop in ("answer", "no_answer") else None


def _drawn(family: SyntheticFamily, config: ProblemSetConfig) -> ProblemSet:
    if not config.problems:
        raise UserError(f"{family.name} has unlimited problems; set problems to a number above 0")
    ids = tuple(family.item_id(config.split, i) for i in range(config.problems))
    return ProblemSet(family.name, ids, family.problem_by_id, _exact, family.verdicts)


def _exact(problem: Problem, solution: Solution) -> Reading:
    right = is_correct(solution.answer, str(problem.answer), problem.answer_type)
    return Reading(solution.answer, right is True)
