"""A problem's search tree while it grows: a state for each prefix, and the rollouts that were made from it.

A *state* is a prefix of steps. Equal prefixes are one state, however they were reached. A rollout counts for the state
that it was made from. On its way it is counted apart, as passed: a search looks at a prefix because of the rollouts
that passed through it (one of them was wrong; none of them was right), so adding them would bias the prefix's value. A
state that ends a solution is not sampled on from: its counts are the outcome of that solution.

A zoom step is a step like any other; what follows it is sampled with its crop in view.
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
JEFFREYS = 0.5  # both shapes of the prior of a state's value


@dataclass(eq=False)
class State:
    """A prefix: the counts of rollouts made from it (`rolled`: they were asked for), the counts of rollouts that passed
    through it, and how often it was selected."""

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
        return self.correct / self.valid if self.valid else math.nan

    @property
    def solved(self) -> bool:
        """Whether a rollout from or through the prefix was right: the policy can reach the answer from there."""
        return self.correct + self.passed_correct > 0

    def add(self, right: bool | None) -> None:
        self.total += 1
        self.valid += right is not None
        self.correct += right is True

    def add_passed(self, right: bool | None) -> None:
        self.passed_valid += right is not None
        self.passed_correct += right is True

    def begin_rollouts(self) -> None:
        """Outcomes of solutions that ended here so far are those of rollouts from elsewhere."""
        self.passed_correct += self.correct
        self.passed_valid += self.valid
        self.rolled, self.correct, self.valid, self.total = True, 0, 0, 0

    def label(self) -> StepLabel:
        passed = {"passed_correct": self.passed_correct, "passed_valid": self.passed_valid}
        return StepLabel(self.correct, self.valid, self.total, **passed)


@dataclass(frozen=True, eq=False)
class WrongRollout:
    """A rollout that ended in a wrong answer, the state that it started from, and how many steps that has."""

    start: State
    cut: int
    solution: Solution


@dataclass
class SearchTree:
    """States, nodes in creation order, and the pool of wrong rollouts."""

    problem: Problem
    engine: Policy
    config: TreeSearchConfig
    seed: int
    root: State = field(default_factory=lambda: State(-1))
    states: list[State] = field(default_factory=list)
    steps: list[tuple[Step, int]] = field(default_factory=list)
    leaves: dict[int, str | None] = field(default_factory=dict)
    wrong: list[WrongRollout] = field(default_factory=list)
    stops: Counter[str] = field(default_factory=Counter)
    rollouts: int = 0
    planned: int = 0
    requests: int = 0
    tokens: int = 0

    @property
    def affordable(self) -> int:
        """How many more prefixes may get their rollouts."""
        prefixes: int = -(-(self.config.budget - self.rollouts) // self.config.rollouts)
        return max(0, prefixes)

    def state(self, prefix: Prefix) -> State:
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

    async def roll(self, prefixes: Sequence[Prefix], n: int, decided: float | None = None) -> list[list[Solution]]:
        """Sample up to `n` solutions that open with each prefix; fewer of those whose outcomes decide before.

        Requests of all prefixes are open at once, and counted in the order of the prefixes: the tree does not depend on
        which answer came first.
        """
        made: list[list[Solution]] = [[] for _ in prefixes]
        for prefix in prefixes:
            state = self.state(prefix)
            assert not state.rolled, "a second batch would be made because of what the first one said"
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
        """Count a rollout for the state `start`, and for the one that it ends in."""
        assert self.problem.answer is not None, f"{self.problem.id} has no gold answer"
        right = is_correct(solution.answer, self.problem.answer, self.problem.answer_type)
        self.rollouts += 1
        self.tokens += solution.tokens
        self.stops[solution.stop] += 1
        # What follows a zoom is asked for by a request of its own.
        self.requests += sum(step.ends_turn for step in solution.steps[len(start) :])
        first = state = self.state(start)
        state.add(right)
        written = solution.steps[len(start) :]
        for step in written[:-1]:
            state = self._next(state, step)
            state.add_passed(right)
        if written:  # a rollout that wrote nothing ends no solution
            state = self._next(state, written[-1])
            self.leaves[state.node] = solution.answer
            state.add_passed(right) if state.rolled else state.add(right)
        if right is False:
            self.wrong.append(WrongRollout(first, len(start), solution))

    def frozen(self) -> StepTree:
        nodes = tuple(
            TreeNode(step, parent, state.label()) for (step, parent), state in zip(self.steps, self.states, strict=True)
        )
        return StepTree(
            self.problem.id, nodes, tuple(sorted(self.leaves.items())), self.root.label(), self.rollouts, self.planned,
            self.requests, self.tokens, dict(self.stops),
        )  # fmt: skip


def is_decided(state: State, threshold: float, level: float) -> bool:
    """Whether the counts say, with posterior probability `level` at least, on which side of the threshold the state's
    value lies (a Beta posterior under Jeffreys' prior). How the sampling was stopped does not matter to a posterior."""
    above = 1 - betainc(state.correct + JEFFREYS, state.valid - state.correct + JEFFREYS, threshold)
    return bool(state.valid) and bool(max(above, 1 - above) >= level)


def outcomes(problem: Problem, tree: StepTree) -> list[bool | None]:
    """Whether the answer of each of a tree's complete solutions is the gold one; None: no result."""
    assert problem.answer is not None, f"{problem.id} has no gold answer"
    return [is_correct(answer, problem.answer, problem.answer_type) for _, answer in tree.leaves]


def read_solutions(problem: Problem, tree: StepTree, most: int | None = None) -> list[int]:
    """The leaves of the solutions that are read, in order: see vlprm.data.selection."""
    counted = {n for n, node in enumerate(tree.nodes) if is_counted(node.label)}
    paths = [tree.path(leaf) for leaf, _ in tree.leaves]
    return [tree.leaves[i][0] for i in in_order(paths, outcomes(problem, tree), counted, most)]


def is_mixed(tree: StepTree) -> bool:
    """Whether the policy solves the problem sometimes and not always: only then does a tree teach anything."""
    return 0 < tree.root.mc_correct < tree.root.mc_valid
