"""OmegaPRM (arXiv 2406.06592, Algorithm 1): binary search for the first errors of the most promising wrong rollouts.

The wrong rollout with the largest Q + U leaves the pool, and a binary search over its interior cuts finds the first
step after which no rollout reaches the answer. Differences from the paper, each of which saves rollouts: root rollouts
also filter problems; no prefix is sampled twice; a right rollout through a prefix proves its value positive, so the
prefix needs none of its own (and has no counts, see data_synth.search.tree).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from data_synth.search.tree import Prefix, SearchTree, WrongRollout
from vlprm.schema import Solution


@dataclass
class _Search:
    """Binary search for a wrong rollout's first error: it is after `low` steps and within `high`. The complete solution
    is known to be wrong and is never sampled from."""

    steps: Prefix
    low: int
    high: int

    @property
    def prefix(self) -> Prefix:
        return self.steps[: (self.low + self.high) // 2]


async def search_first_errors(tree: SearchTree, root: Sequence[Solution]) -> None:
    """Grow a tree from its root rollouts `root`, whose wrong ones are already in the tree's pool."""
    left = tree.config.searches
    while left and tree.affordable:
        chosen = [pair for _ in range(min(left, tree.config.searches_at_once)) if (pair := _select(tree))]
        if not chosen:
            break
        left -= len(chosen)
        await _find_first_errors(
            tree, [_Search(pair.solution.steps, pair.cut, len(pair.solution.steps)) for pair in chosen]
        )


def _select(tree: SearchTree) -> WrongRollout | None:
    """Remove the pair of state and wrong rollout with the largest Q + U from the pool."""
    open_pairs = [pair for pair in tree.wrong if 0 < pair.start.value < 1]
    if not open_pairs:
        return None
    config = tree.config
    visits = tree.root.visits + sum(state.visits for state in tree.states)

    def priority(pair: WrongRollout) -> float:
        q: float = config.alpha ** (1 - pair.start.value) * config.beta ** (pair.solution.tokens / config.length)
        u: float = config.c_puct * math.sqrt(visits) / (1 + pair.start.visits)
        return q + u

    chosen = max(open_pairs, key=priority)
    tree.wrong.remove(chosen)
    chosen.start.visits += 1
    return chosen


async def _find_first_errors(tree: SearchTree, searches: Sequence[_Search]) -> None:
    """Halve all intervals in lockstep, so that the tree does not depend on the order of answers."""
    while searches := [search for search in searches if search.high - search.low > 1]:
        states = {search.prefix: tree.state(search.prefix) for search in searches}
        unknown = [prefix for prefix, state in states.items() if not state.rolled and not state.solved]
        await tree.roll(unknown, tree.config.rollouts, tree.config.decided)
        # Without a result, the prefix is neither good nor bad: its search ends.
        searches = [s for s in searches if states[s.prefix].valid or states[s.prefix].solved]
        for search in searches:
            cut = len(search.prefix)
            search.low, search.high = (cut, search.high) if states[search.prefix].solved else (search.low, cut)
