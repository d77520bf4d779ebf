"""Which steps a person is asked about, in which order, and what the page shows of each."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from data_synth.annotations.config import Order
from data_synth.annotations.journal import AnnotationJournal, Said
from data_synth.search.store import TreeRun
from vlprm.data.dataset import check_columns, row_problem, row_steps
from vlprm.data.row_file import TableFile
from vlprm.errors import UserError
from vlprm.labels.fusion import INJECTED, seen_value
from vlprm.runs.folder import refuse_other_inputs
from vlprm.schema import Problem, Step, StepLabel, from_json, path_to
from vlprm.viewer.annotate import Progress, Question, Questions, VoteView
from vlprm.viewer.views import CandidateView, ProblemView, StepView


@dataclass(frozen=True)
class Labelled:
    """A tree with its labels: its steps, their parents (-1: the prompt), and the last step and answer of each
    solution."""

    problem: Problem
    steps: Sequence[Step]
    parents: Sequence[int]
    labels: Sequence[StepLabel]
    leaves: Sequence[tuple[int, str | None]]


class Source(Protocol):
    """Labelled trees by index."""

    def __len__(self) -> int: ...

    def tree(self, at: int) -> Labelled:
        """The tree at this index."""
        ...


class Unfused(Source):
    """The trees of a search run, with the share of right rollouts as targets."""

    def __init__(self, trees: TreeRun) -> None:
        self._trees = trees

    def __len__(self) -> int:
        return len(self._trees)

    def tree(self, at: int) -> Labelled:
        """The tree at this index."""
        found = self._trees.tree(at)
        nodes = found.tree.nodes
        labels = [replace(node.label, target=seen_value(node.label), rule="mc") for node in nodes]
        return Labelled(found.problem, [node.step for node in nodes], found.tree.parents, labels, found.tree.leaves)


class Fused(Source):
    """The trees of a run of data_synth.label, with its targets and votes. UserError if it was made from other trees."""

    def __init__(self, labels: Path, trees: TreeRun) -> None:
        refuse_other_inputs(labels, trees.files)
        self._file = TableFile(labels / "dataset.parquet")
        check_columns(self._file.path, self._file.columns)

    def __len__(self) -> int:
        return sum(rows for rows, _ in self._file.groups)

    def tree(self, at: int) -> Labelled:
        """The tree at this index."""
        row = self._file.row(at)
        evidence: list[dict[str, Any]] = json.loads(row["evidence"])
        labels = [from_json(StepLabel, one["label"]) for one in evidence]
        leaves = [(leaf["node"], leaf["answer"]) for leaf in row["leaves"]]
        return Labelled(row_problem(row), row_steps(row, evidence), row["parents"], labels, leaves)


@dataclass(frozen=True)
class Place:
    """A step to ask about: the tree's index in its source, the problem's id, the nodes of a solution through the step,
    and the step's index among them."""

    tree: int
    problem_id: str
    nodes: tuple[int, ...]
    step: int


def most_doubtful(source: Source, order: Order, steps: int) -> list[Place]:
    """At most `steps` steps of solutions, the most doubtful first; ties in the order of the source. A solution's last
    step is left out: its answer labels it, whatever the sources say (see `vlprm.labels.fusion.fuse_tree`)."""
    found = heapq.nsmallest(steps, _doubts(source, order), key=lambda one: one[0])
    return [place for _, place in found]


def _doubts(source: Source, order: Order) -> Iterator[tuple[tuple[float, float], Place]]:
    for at in range(len(source)):
        tree = source.tree(at)
        through: dict[int, tuple[int, ...]] = {}  # each step's first solution
        for leaf, _ in tree.leaves:
            nodes = tuple(path_to(leaf, tree.parents))
            for node in nodes if INJECTED in tree.labels[leaf].votes else nodes[:-1]:
                through.setdefault(node, nodes)
        for node in sorted(through):
            nodes = through[node]
            yield doubt(tree.labels[node], order), Place(at, tree.problem.id, nodes, nodes.index(node))


def doubt(label: StepLabel, order: Order) -> tuple[float, float]:
    """The lower, the more doubtful. A step without a target is as uncertain as can be."""
    certainty = 0.0 if label.target is None else abs(label.target - 0.5)
    if order == "uncertain":
        return certainty, 0.0
    right = sum(vote.correct for vote in label.votes.values())
    fewer = min(right, len(label.votes) - right)
    return -fewer / max(1, len(label.votes)), certainty


class StepQuestions(Questions):
    """The questions of the page over a source, and a journal for the answers. UserError without a step."""

    def __init__(self, source: Source, journal: AnnotationJournal, order: Order, steps: int) -> None:
        self._source, self._journal = source, journal
        self._places = most_doubtful(source, order, steps)
        if not self._places:
            raise UserError("no tree has a solution of two steps, so there is nothing to ask; search more problems")

    def __len__(self) -> int:
        return len(self._places)

    def question(self, at: int) -> Question:
        """The question at this index."""
        place = self._places[at]
        tree, said = self._source.tree(place.tree), self._journal.of(place.problem_id)
        labels = [tree.labels[node] for node in place.nodes]
        mine = [said.get(node) for node in place.nodes]
        return Question(
            _view(tree, place),
            place.step,
            [_votes(label) for label in labels],
            [(label.seen_correct, label.seen_valid) for label in labels],
            [one.verdict if one else None for one in mine],
            [one.reason if one else "" for one in mine],
        )

    def images(self, at: int) -> tuple[bytes, ...]:
        """The images of the problem of the question at this index."""
        return self._source.tree(self._places[at].tree).problem.images

    def answer(self, at: int, step: int, verdict: str, reason: str) -> None:
        """Write the verdict to the journal."""
        place = self._places[at]
        self._journal.add(place.problem_id, place.nodes[step], Said(verdict, reason))

    def progress(self, after: int) -> Progress:
        """How many questions are answered."""
        states = [self._state(place) for place in self._places]
        opened = [at for at, state in enumerate(states) if state == "open"]
        following = next((at for at in opened if at > after), opened[0] if opened else None)
        return Progress(states.count("answered"), states.count("moot"), len(states), following)

    def _state(self, place: Place) -> str:
        said = self._journal.of(place.problem_id)
        if place.nodes[place.step] in said:
            return "answered"
        before = (said.get(node) for node in place.nodes[: place.step])
        return "moot" if any(one and one.vote and not one.vote.correct for one in before) else "open"


def _view(tree: Labelled, place: Place) -> ProblemView:
    problem = tree.problem
    steps = tuple(
        StepView(tree.steps[node].text, tree.steps[node].kind, tree.labels[node].target, region=tree.steps[node].region)
        for node in place.nodes
    )
    answer = dict(tree.leaves)[place.nodes[-1]]
    solution = CandidateView(steps, answer, None)
    kind = str(problem.meta.get("question_type", ""))
    return ProblemView(
        problem.id, problem.task, kind, problem.question, problem.answer, len(problem.images), (solution,)
    )


def _votes(label: StepLabel) -> list[VoteView]:
    return [VoteView(name, vote.correct, vote.error_kind, vote.reason) for name, vote in label.votes.items()]
