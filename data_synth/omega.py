"""A search tree over a policy's own steps, with Monte Carlo values: OmegaPRM (arXiv 2406.06592, Algorithm 1).

A *state* is a prefix of steps. From a chosen wrong rollout, binary search over its cut points finds the first step
after which no rollout reaches the answer. Departures from the paper, each of which saves rollouts: the rollouts that
filter a problem are the root's; a prefix that was met before is not rolled again; a rollout counts for every state
that it passes through, which is fair because it was sampled on from there by the same policy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveInt

from vlprm.answers import is_correct
from vlprm.engines import Engine, Request
from vlprm.rollout import rollouts
from vlprm.schema import Problem, Solution, Step, StepLabel, StepTree, TreeNode


@dataclass(frozen=True)
class OmegaConfig:
    """The search's numbers, named as in the paper.

    Args:
        root_rollouts: rollouts from the problem; all right or all wrong, and it is dropped.
        rollouts: k, rollouts from a cut point.
        searches: most binary searches a problem.
        alpha: weight of a state's value in Q.
        beta: weight of a rollout's length in Q.
        length: L, the length in tokens that Q counts as long.
        c_puct: weight of exploration.
        temperature: of the policy's sampling.
        max_tokens: of one turn of a rollout.
    """

    root_rollouts: PositiveInt = 8
    rollouts: PositiveInt = 4
    searches: NonNegativeInt = 4
    alpha: ClosedUnitInterval = 0.5
    beta: ClosedUnitInterval = 0.9
    length: PositiveInt = 100
    c_puct: NonNegativeFloat = 0.125
    temperature: NonNegativeFloat = 1.0
    max_tokens: PositiveInt = 160


Prefix = tuple[Step, ...]


@dataclass
class _State:
    node: int
    correct: int = 0
    valid: int = 0
    total: int = 0
    visits: int = 0
    rolled: bool = False

    @property
    def value(self) -> float:
        return self.correct / self.valid if self.valid else math.nan

    def label(self) -> StepLabel:
        return StepLabel(mc_correct=self.correct, mc_valid=self.valid, mc_total=self.total)


@dataclass
class _Tree:
    """States by prefix, nodes in creation order, and the pool of wrong rollouts still to be searched."""

    states: dict[Prefix, _State] = field(default_factory=lambda: {(): _State(-1)})
    steps: list[tuple[Step, int]] = field(default_factory=list)
    leaves: dict[int, str | None] = field(default_factory=dict)
    pool: list[tuple[Prefix, Solution]] = field(default_factory=list)
    rollouts: int = 0

    def state(self, prefix: Prefix) -> _State:
        if prefix not in self.states:
            parent = self.state(prefix[:-1])
            self.steps.append((prefix[-1], parent.node))
            self.states[prefix] = _State(len(self.steps) - 1)
        return self.states[prefix]

    def add(self, start: Prefix, solution: Solution, right: bool | None) -> None:
        """Count a rollout from `start` for each state on its way."""
        self.rollouts += 1
        for cut in range(len(start), len(solution.steps) + 1):
            state = self.state(solution.steps[:cut])
            state.total += 1
            state.valid += right is not None
            state.correct += right is True
        if len(solution.steps) > len(start):  # a rollout that wrote nothing ends no solution
            self.leaves[self.state(solution.steps).node] = solution.answer
        if right is False:
            self.pool.append((start, solution))

    def frozen(self, problem: Problem) -> StepTree:
        labels = {state.node: state.label() for state in self.states.values()}
        nodes = tuple(TreeNode(step, parent, labels[i]) for i, (step, parent) in enumerate(self.steps))
        return StepTree(problem.id, nodes, tuple(sorted(self.leaves.items())), labels[-1], self.rollouts)


async def grow(problem: Problem, engine: Engine, config: OmegaConfig, seed: int) -> StepTree:
    """The tree of one problem. A problem that the policy always or never solves keeps its root's rollouts alone."""
    tree = _Tree()
    await _roll(tree, problem, engine, config, (), config.root_rollouts, seed)
    for _ in range(config.searches):
        chosen = _select(tree, config)
        if chosen is None:
            break
        await _find_first_error(tree, problem, engine, config, *chosen, seed)
    return tree.frozen(problem)


def is_mixed(tree: StepTree) -> bool:
    """Whether the policy solves the problem sometimes and not always: only then does a tree teach anything."""
    return 0 < tree.root.mc_correct < tree.root.mc_valid


async def _roll(
    tree: _Tree, problem: Problem, engine: Engine, config: OmegaConfig, prefix: Prefix, n: int, seed: int
) -> None:
    key = f"{problem.id}#{tree.state(prefix).node}"
    request = Request(problem, prefix, n, key, seed, config.temperature, config.max_tokens)
    assert problem.answer is not None, f"{problem.id} has no gold answer"
    for solution in await rollouts(engine, request):
        tree.add(prefix, solution, is_correct(solution.answer, problem.answer, problem.answer_type))
    tree.state(prefix).rolled = True


def _select(tree: _Tree, config: OmegaConfig) -> tuple[Prefix, Solution] | None:
    """Take the pair of state and wrong rollout with the largest Q + U out of the pool."""
    open_pairs = [pair for pair in tree.pool if 0 < tree.states[pair[0]].value < 1]
    if not open_pairs:
        return None
    visits = sum(state.visits for state in tree.states.values())

    def priority(pair: tuple[Prefix, Solution]) -> float:
        state = tree.states[pair[0]]
        q = config.alpha ** (1 - state.value) * config.beta ** (pair[1].tokens / config.length)
        return q + config.c_puct * math.sqrt(visits) / (1 + state.visits)

    chosen = max(open_pairs, key=priority)
    tree.pool.remove(chosen)
    tree.states[chosen[0]].visits += 1
    return chosen


async def _find_first_error(
    tree: _Tree, problem: Problem, engine: Engine, config: OmegaConfig, start: Prefix, wrong: Solution, seed: int
) -> None:
    """Binary search over interior cuts: good up to `low` steps, bad from `high` on. The complete solution is known
    to be wrong and is never rolled."""
    low, high = len(start), len(wrong.steps)
    while high - low > 1:
        cut = (low + high) // 2
        prefix = wrong.steps[:cut]
        state = tree.state(prefix)
        if not state.rolled and state.correct == 0:  # a correct rollout that passed through proves the value positive
            await _roll(tree, problem, engine, config, prefix, config.rollouts, seed)
        if state.valid == 0:
            return  # no result: neither good nor bad
        low, high = (cut, high) if state.correct else (low, cut)
