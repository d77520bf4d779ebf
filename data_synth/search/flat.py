"""Rollouts at every prefix of a few solutions: Math-Shepherd (arXiv 2312.08935, section 3.2), VisualPRM (2503.10291).

All prefixes are sampled at once, so a problem takes two rounds of requests; a binary search takes many. Complete
solutions need no rollouts, and a shared prefix is sampled once.
"""

from __future__ import annotations

from collections.abc import Sequence

from data_synth.search.tree import SearchTree
from vlprm.schema import Solution


async def roll_every_prefix(tree: SearchTree, root: Sequence[Solution]) -> None:
    """Grow a tree from its root rollouts `root`."""
    solutions = [solution.steps for solution in root[: tree.config.solutions]]
    prefixes = dict.fromkeys(steps[:cut] for steps in solutions for cut in range(1, len(steps)))
    await tree.roll(list(prefixes)[: tree.affordable], tree.config.rollouts, tree.config.decided)
