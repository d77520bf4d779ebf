"""The rollouts of a policy in training as search trees: one tree per problem, from the files of `train.grpo`.

    GRPO/config.yaml                   `tasks` or `problem_file` of the problems
    GRPO/rounds/00017.jsonl            one solution per line; of its `trajectory`, `problem_id`, `steps`, `given`
                                       (steps of another solution, from which it forks), `answer` and `stop` are read

A solution counts for the state that it was sampled from, the prompt or its fork, and for each state after it: none of
them was chosen by its outcome. For states before its fork it does not count: their solutions would be weighted by how
often they were forked. So at each prefix, right solutions are on average the prefix's value times all that count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data_synth.search.tree import CountedTree
from vlprm.data.problem_file import ProblemFile
from vlprm.errors import UserError
from vlprm.runs.folder import CONFIG
from vlprm.runs.journal import placed_records, record_at
from vlprm.schema import Problem, Step, StepTree, structured
from vlprm.tasks import load_tasks, problem_by_id

ROUNDS = "rounds"


@dataclass(frozen=True)
class Sampled:
    """A solution of a round. Its first `given` steps are those of the solution from which it forks."""

    steps: tuple[Step, ...]
    given: int
    answer: str | None
    stop: str


class Rounds:
    """The groups of a run's `newest` rounds (0: all), by problem; of a problem that came up again, the newest group.
    UserError if the folder has no rounds."""

    def __init__(self, folder: Path, newest: int = 0) -> None:
        files = sorted((folder / ROUNDS).glob("*.jsonl"))
        if not files:
            raise UserError(f"{folder} has no rounds; give the run folder of train.grpo, after its first round")
        self.files = files[-newest:]
        self._places: dict[str, tuple[Path, list[int]]] = {}
        self.replaced = 0  # groups of problems that came up again
        for path in self.files:
            found: dict[str, list[int]] = {}
            for place, record in placed_records(path):
                found.setdefault(_trajectory(record, path)["problem_id"], []).append(place)
            self.replaced += len(found.keys() & self._places.keys())
            self._places |= {name: (path, places) for name, places in found.items()}

    @property
    def ids(self) -> list[str]:
        """The problems, in the order of their first rounds."""
        return list(self._places)

    def group(self, problem_id: str) -> Iterator[Sampled]:
        """The solutions of a problem."""
        path, places = self._places[problem_id]
        for place in places:
            told = _trajectory(record_at(path, place), path)
            steps = tuple(structured(Step, step, f"a step of {problem_id} in {path}") for step in told["steps"])
            yield Sampled(steps, told["given"], told["answer"], told["stop"])


def _trajectory(record: dict[str, Any], path: Path) -> dict[str, Any]:
    told = record.get("trajectory", {})
    if missing := {"problem_id", "steps", "given", "answer", "stop"} - told.keys():
        raise UserError(f"{path} was not written by this version of train.grpo: it lacks {', '.join(sorted(missing))}")
    return dict(told)


def problems_of(folder: Path) -> Callable[[str], Problem]:
    """The function that makes a problem of the run from its id. UserError if the run's problems are not there."""
    path = folder / CONFIG
    if not path.exists():
        raise UserError(f"{path} is missing; copy it next to {ROUNDS}, because it says where the problems come from")
    config = yaml.safe_load(path.read_text())
    if config.get("critiques"):
        raise UserError(f"{folder} trained a critic, and critiques are no search trees; give the run of a policy")
    if config.get("problem_file"):
        return ProblemFile(Path(config["problem_file"])).problem
    tasks = load_tasks(tuple(config["tasks"]))
    return lambda problem_id: problem_by_id(problem_id, tasks)


def tree_of(problem: Problem, solutions: Sequence[Sampled]) -> StepTree:
    """The tree of a group with its counts. It cost no requests."""
    tree = CountedTree(problem)
    for one in solutions:
        right = tree.is_right(one.answer)
        tree.rollouts += 1
        tree.planned += 1
        tree.stops[one.stop] += 1
        state = tree.state(one.steps[: one.given])
        state.add(right)
        for end in range(one.given + 1, len(one.steps) + 1):
            state = tree.state(one.steps[:end])
            state.add(right)
        if len(one.steps) > one.given:
            tree.leaves[state.node] = one.answer
    return tree.frozen()
