"""Rollouts at every prefix of a few solutions: Math-Shepherd (arXiv 2312.08935, section 3.2), VisualPRM (2503.10291).

All prefixes are asked for at once, so a problem takes two rounds of requests, where a binary search takes many; the
complete solution is known by its answer, and a prefix that two solutions share is rolled once.
"""

from __future__ import annotations

from collections.abc import Sequence

from data_synth.search.tree import SearchTree
from vlprm.schema import Solution


async def roll_every_prefix(tree: SearchTree, root: Sequence[Solution]) -> None:
    """Grow a tree whose root has the rollouts `root`."""
    solutions = [solution.steps for solution in root[: tree.config.solutions]]
    prefixes = dict.fromkeys(steps[:cut] for steps in solutions for cut in range(1, len(steps)))
    await tree.roll(list(prefixes)[: tree.affordable], tree.config.rollouts, tree.config.decided)
