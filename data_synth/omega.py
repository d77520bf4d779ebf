"""OmegaPRM (arXiv 2406.06592, Algorithm 1): binary search for the first error of the rollouts that promise most.

From the pool of wrong rollouts the one with the largest Q + U is taken, and binary search over its interior cuts finds
the first step after which no rollout reaches the answer. Departures from the paper, each of which saves rollouts: the
rollouts that filter a problem are the root's; a prefix that was met before is not rolled again; a correct rollout that
passed through a prefix proves its value positive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from data_synth.search_tree import Prefix, SearchTree
from vlprm.schema import Solution


async def search_first_errors(tree: SearchTree, root: Sequence[Solution]) -> None:
    """Grow a tree whose root has the rollouts `root`; the wrong ones are in its pool already."""
    for _ in range(tree.config.searches):
        chosen = _select(tree) if tree.affordable else None
        if chosen is None:
            break
        await _find_first_error(tree, *chosen)


def _select(tree: SearchTree) -> tuple[Prefix, Solution] | None:
    """Take the pair of state and wrong rollout with the largest Q + U out of the pool."""
    open_pairs = [pair for pair in tree.wrong if 0 < tree.states[pair[0]].value < 1]
    if not open_pairs:
        return None
    config = tree.config
    visits = sum(state.visits for state in tree.states.values())

    def priority(pair: tuple[Prefix, Solution]) -> float:
        state = tree.states[pair[0]]
        q = config.alpha ** (1 - state.value) * config.beta ** (pair[1].tokens / config.length)
        return q + config.c_puct * math.sqrt(visits) / (1 + state.visits)

    chosen = max(open_pairs, key=priority)
    tree.wrong.remove(chosen)
    tree.states[chosen[0]].visits += 1
    return chosen


async def _find_first_error(tree: SearchTree, start: Prefix, wrong: Solution) -> None:
    """Binary search over interior cuts: good up to `low` steps, bad from `high` on. The complete solution is known
    to be wrong and is never rolled."""
    low, high = len(start), len(wrong.steps)
    while high - low > 1:
        cut = (low + high) // 2
        prefix = wrong.steps[:cut]
        state = tree.state(prefix)
        if not state.rolled and state.correct == 0:
            await tree.roll([prefix], tree.config.rollouts, tree.config.decided)
        if state.valid == 0:
            return  # no result: neither good nor bad
        low, high = (cut, high) if state.correct else (low, cut)
