"""The scored solutions of one problem as a tree: what was asked, what it cost, and the nodes to read for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vlprm.model.inputs import InputBuilder
from vlprm.model.packing import Node
from vlprm.schema import Problem, Step, StepScore
from vlprm.scoring.kv_tree import Extension, KVTree

PROMPT = 0


@dataclass(frozen=True)
class _Place:
    """A step of the tree. `above`: the place before it; `tokens`: number of tokens from the prompt to its end."""

    above: int
    step: Step
    after: Step | None
    tokens: int


class ScoredTree:
    """The solutions of the last request, their scores and their KV cache. Places are the prompt (0) and the steps;
    steps that cannot be read (`InputBuilder.readable`) have no place.

    The cache may be dropped between requests (`evict`). Places are then read again if something below them needs a
    score; `new_tokens` does not count them again, so that the cost of a search does not depend on the memory."""

    def __init__(self, inputs: InputBuilder, problem: Problem) -> None:
        self.inputs, self.problem = inputs, problem
        self.cache = KVTree()
        self.new_tokens: list[int] = []  # per solution of the request: tokens that earlier ones do not share
        self._paths: list[list[int]] = []  # per solution: the places of its steps
        self._places: dict[int, _Place] = {}
        self._below: dict[tuple[int, Step], int] = {}
        self._scores: dict[int, StepScore] = {}
        self._node: dict[int, int] = {}  # for each place in the cache
        self._planned: dict[int, int] = {}  # the same for a growth
        self._scored_at: dict[int, int] = {}
        self._made = PROMPT  # the last place

    def ask(self, solutions: Sequence[Sequence[Step]]) -> None:
        """Ask for the scores of all steps of the solutions. What is not part of them is dropped."""
        self._forget_others(solutions)
        prompt = len(self.inputs.prompt(self.problem).ids)
        began = self._made == PROMPT
        self._paths, self.new_tokens = [], []
        for steps in solutions:
            known = self._made
            self._paths.append(self._added(steps, prompt))
            new = range(known + 1, self._made + 1)
            self.new_tokens.append(sum(len(node.segment.ids) for place in new for node in self._nodes(place, 0, 0)))
        if began and self._made > PROMPT:  # without a step to score, the prompt is not read
            self.new_tokens[0] += prompt

    def growth(self, keep: bool) -> Extension:
        """The nodes to read so that all steps of the request have scores."""
        first = len(self.cache.parents)
        nodes: list[Node] = []
        self._planned, self._scored_at = {}, {}
        for path in self._paths:
            unscored = [i for i, place in enumerate(path) if place not in self._scores]
            for place in path[: unscored[-1] + 1 if unscored else 0]:
                if place in self._node or place in self._planned:
                    continue
                if PROMPT not in self._node and not nodes:
                    self._planned[PROMPT] = first
                    nodes.append(Node(self.inputs.prompt(self.problem), -1))
                above, at = self._places[place].above, first + len(nodes)
                self._planned[place] = at
                nodes += self._nodes(place, self._planned.get(above, self._node.get(above, -1)), at)
                if place not in self._scores:
                    self._scored_at[place] = first + len(nodes) - 1
        return Extension(self.cache, nodes, keep)

    def grown(self) -> None:
        """Take over the scores and the nodes of the last growth, after it was read."""
        self._node |= self._planned
        self._scores |= {place: self.cache.scores[node] for place, node in self._scored_at.items()}

    def evict(self) -> None:
        """Drop the cache."""
        self.cache.keep(())  # its tensors too, if a growth still refers to it
        self.cache, self._node = KVTree(), {}

    def scores(self, steps: Sequence[Step]) -> list[StepScore | None]:
        """The score of each step; None if the tree has none."""
        return of_all([self._scores[place] for place in self._path(steps)], steps)

    def _added(self, steps: Sequence[Step], prompt: int) -> list[int]:
        """The places of the steps, as far as they can be read; new ones are added."""
        path: list[int] = []
        above = PROMPT
        for k, step in enumerate(steps):
            if (above, step) not in self._below:
                after, tokens = steps[k - 1] if k else None, self._places[above].tokens if k else prompt
                segment = self.inputs.readable_step(self.problem, step, after, tokens)
                if segment is None:
                    break
                self._made += 1
                self._below[above, step] = self._made
                self._places[self._made] = _Place(above, step, after, tokens + len(segment.ids))
            above = self._below[above, step]
            path.append(above)
        return path

    def _nodes(self, place: int, parent: int, at: int) -> list[Node]:
        """The nodes of a place below a parent, the first of them with the number `at`; the last one is scored."""
        of = self._places[place]
        segment = self.inputs.step(self.problem, of.step, of.after)
        if place in self._scores:
            return [Node(segment, parent)]
        if self.inputs.asks:
            return [Node(segment, parent), Node(self.inputs.verdict_question(), at, scores=0)]
        return [Node(segment, parent, writes=0, scores=0)]

    def _path(self, steps: Sequence[Step]) -> list[int]:
        """The places of the steps, as far as they exist."""
        path: list[int] = []
        for step in steps:
            place = self._below.get((path[-1] if path else PROMPT, step))
            if place is None:
                break
            path.append(place)
        return path

    def _forget_others(self, solutions: Sequence[Sequence[Step]]) -> None:
        kept = {PROMPT, *(place for steps in solutions for place in self._path(steps))}
        self._places = {place: one for place, one in self._places.items() if place in kept}
        self._below = {key: place for key, place in self._below.items() if place in kept}
        self._scores = {place: score for place, score in self._scores.items() if place in kept}
        self._node = {place: node for place, node in self._node.items() if place in kept}
        self.cache.keep(self._node.values())


def of_all(scores: Sequence[StepScore | None], steps: Sequence[Step]) -> list[StepScore | None]:
    """The scores of a solution's steps: of those that could be read, then None for the rest. What the steps add to the
    log-odds, with an implicit head, adds up along the solution (`vlprm.model.implicit`)."""
    found: list[StepScore | None] = []
    log_odds = 0.0
    for score in scores:
        if score is not None and score.log_odds is not None:
            log_odds += score.log_odds
            score = replace(score, correct=_logistic(log_odds))
        found.append(score)
    return [*found, *[None] * (len(steps) - len(scores))]


def _logistic(x: float) -> float:
    small = math.exp(-abs(x))
    return (1.0 if x >= 0 else small) / (1.0 + small)
