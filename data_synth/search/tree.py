"""A growing search tree of one problem: one state per prefix, with the counts of its rollouts.

A *state* is a prefix of steps; equal prefixes share one state. A rollout counts for the state that it started from. For
the states that it passes through it is counted apart: the search visits a prefix because rollouts through it were
wrong, so adding those would bias the prefix's value. A state that ends a solution is not sampled from: its counts are
the outcome of that solution.

After a zoom step, rollouts continue with its crop in view.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from scipy.special import betainc

from data_synth.search.config import TreeSearchConfig
from vlprm.answers import is_correct
from vlprm.data.selection import in_order, is_counted
from vlprm.policy import Policy, Request, all_answers
from vlprm.policy.rollout import rollouts
from vlprm.schema import Problem, Solution, Step, StepLabel, StepTree, TreeNode

Prefix = tuple[Step, ...]
JEFFREYS = 0.5  # both shape parameters of the Beta prior on a state's value


@dataclass(eq=False)
class State:
    """Counts of the rollouts from a prefix, and of those that passed through it. `rolled`: it was sampled from;
    `visits`: number of selections (OmegaPRM)."""

    node: int
    correct: int = 0
    valid: int = 0
    total: int = 0
    passed_correct: int = 0
    passed_valid: int = 0
    rolled: bool = False
    visits: int = 0
    after: dict[Step, State] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """Share of right rollouts among valid ones; NaN if there are none."""
        return self.correct / self.valid if self.valid else math.nan

    @property
    def solved(self) -> bool:
        """Whether a rollout from or through the prefix was right: the policy can reach the answer from there."""
        return self.correct + self.passed_correct > 0

    def add(self, right: bool | None) -> None:
        """Count one rollout; None: no result."""
        self.total += 1
        self.valid += right is not None
        self.correct += right is True

    def add_passed(self, right: bool | None) -> None:
        """Count one rollout from an earlier prefix; None: no result."""
        self.passed_valid += right is not None
        self.passed_correct += right is True

    def begin_rollouts(self) -> None:
        """Reset the counts. Solutions that ended here so far were rollouts from elsewhere."""
        self.passed_correct += self.correct
        self.passed_valid += self.valid
        self.rolled, self.correct, self.valid, self.total = True, 0, 0, 0

    def label(self) -> StepLabel:
        """The counts as a label without target."""
        return StepLabel(
            self.correct,
            self.valid,
            self.total,
            passed_correct=self.passed_correct,
            passed_valid=self.passed_valid,
        )


@dataclass(frozen=True, eq=False)
class WrongRollout:
    """A rollout with a wrong answer, the state it started from, and that state's number of steps `cut`."""

    start: State
    cut: int
    solution: Solution


@dataclass
class CountedTree:
    """States, and nodes in creation order."""

    problem: Problem
    root: State = field(default_factory=lambda: State(-1), init=False)
    states: list[State] = field(default_factory=list, init=False)
    steps: list[tuple[Step, int]] = field(default_factory=list, init=False)
    leaves: dict[int, str | None] = field(default_factory=dict, init=False)
    stops: Counter[str] = field(default_factory=Counter, init=False)
    rollouts: int = field(default=0, init=False)
    planned: int = field(default=0, init=False)
    requests: int = field(default=0, init=False)
    tokens: int = field(default=0, init=False)

    def state(self, prefix: Prefix) -> State:
        """The state of a prefix, created if it is new."""
        state = self.root
        for step in prefix:
            state = self._next(state, step)
        return state

    def _next(self, state: State, step: Step) -> State:
        if step not in state.after:
            self.steps.append((step, state.node))
            state.after[step] = State(len(self.states))
            self.states.append(state.after[step])
        return state.after[step]

    def is_right(self, answer: str | None) -> bool | None:
        """Whether an answer is the gold answer; None: no result."""
        assert self.problem.answer is not None, f"{self.problem.id} has no gold answer"
        return is_correct(answer, self.problem.answer, self.problem.answer_type)

    def frozen(self) -> StepTree:
        """The tree as an immutable StepTree."""
        nodes = tuple(
            TreeNode(step, parent, state.label()) for (step, parent), state in zip(self.steps, self.states, strict=True)
        )
        return StepTree(
            self.problem.id, nodes, tuple(sorted(self.leaves.items())), self.root.label(), self.rollouts, self.planned,
            self.requests, self.tokens, dict(self.stops),
        )  # fmt: skip


@dataclass
class SearchTree(CountedTree):
    """A tree that grows by rollouts of a policy, and the pool of wrong ones."""

    engine: Policy
    config: TreeSearchConfig
    seed: int
    wrong: list[WrongRollout] = field(default_factory=list, init=False)

    @property
    def affordable(self) -> int:
        """Number of prefixes that the budget still allows to sample from."""
        prefixes: int = -(-(self.config.budget - self.rollouts) // self.config.rollouts)
        return max(0, prefixes)

    async def roll(self, prefixes: Sequence[Prefix], n: int, decided: float | None = None) -> list[list[Solution]]:
        """Sample up to `n` solutions from each prefix; stop earlier once its outcomes are `decided`.

        All prefixes are requested concurrently and counted in their order, so the tree does not depend on the order of
        answers.
        """
        made: list[list[Solution]] = [[] for _ in prefixes]
        for prefix in prefixes:
            state = self.state(prefix)
            assert not state.rolled, "a second batch that depends on the first would bias the value"
            state.begin_rollouts()
        self.planned += n * len(prefixes)
        while pending := [
            i for i, prefix in enumerate(prefixes) if len(made[i]) < n and not self._is_decided(prefix, decided)
        ]:
            sizes = [min(self.config.chunk, n - len(made[i])) if decided else n for i in pending]
            asked = (self._sample(prefixes[i], size, len(made[i])) for i, size in zip(pending, sizes, strict=True))
            for i, solutions in zip(pending, await all_answers(asked), strict=True):
                for solution in solutions:
                    self._count(prefixes[i], solution)
                made[i] += solutions
        return made

    def _is_decided(self, prefix: Prefix, level: float | None) -> bool:
        return level is not None and is_decided(self.state(prefix), self.config.threshold, level)

    async def _sample(self, prefix: Prefix, n: int, first: int) -> list[Solution]:
        key = f"{self.problem.id}#{self.state(prefix).node}" + (f"+{first}" if first else "")
        self.requests += 1
        request = Request(self.problem, prefix, n, key, self.seed, self.config.temperature, self.config.max_tokens)
        return await rollouts(self.engine, request)

    def _count(self, start: Prefix, solution: Solution) -> None:
        """Count a rollout for the state it started from and the state it ends in."""
        right = self.is_right(solution.answer)
        self.rollouts += 1
        self.tokens += solution.tokens
        self.stops[solution.stop] += 1
        # The continuation after a zoom is a separate request.
        self.requests += sum(step.ends_turn for step in solution.steps[len(start) :])
        first = state = self.state(start)
        state.add(right)
        written = solution.steps[len(start) :]
        for step in written[:-1]:
            state = self._next(state, step)
            state.add_passed(right)
        if written:  # an empty rollout does not end a solution
            state = self._next(state, written[-1])
            self.leaves[state.node] = solution.answer
            state.add_passed(right) if state.rolled else state.add(right)
        if right is False:
            self.wrong.append(WrongRollout(first, len(start), solution))


def is_decided(state: State, threshold: float, level: float) -> bool:
    """Whether the state's value is above, or below, the threshold with posterior probability of at least `level` (Beta
    posterior with Jeffreys prior; early stopping does not affect it)."""
    above = 1 - betainc(state.correct + JEFFREYS, state.valid - state.correct + JEFFREYS, threshold)
    return bool(state.valid) and bool(max(above, 1 - above) >= level)


def outcomes(problem: Problem, tree: StepTree) -> list[bool | None]:
    """Whether each complete solution of a tree has the gold answer; None: no result."""
    assert problem.answer is not None, f"{problem.id} has no gold answer"
    return [is_correct(answer, problem.answer, problem.answer_type) for _, answer in tree.leaves]


def read_solutions(problem: Problem, tree: StepTree, most: int | None = None) -> list[int]:
    """Leaves of at most `most` solutions to judge or train on, in order (see vlprm.data.selection)."""
    counted = {n for n, node in enumerate(tree.nodes) if is_counted(node.label)}
    paths = [tree.path(leaf) for leaf, _ in tree.leaves]
    return [tree.leaves[i][0] for i in in_order(paths, outcomes(problem, tree), counted, most)]


def is_mixed(tree: StepTree) -> bool:
    """Whether some root rollouts are right and others wrong; other trees carry no training signal."""
    return 0 < tree.root.mc_correct < tree.root.mc_valid
