"""Search one problem: rollouts from the root, then an estimator if some of them, but not all, are right."""

from __future__ import annotations

from data_synth.search.config import TreeSearchConfig
from data_synth.search.flat import roll_every_prefix
from data_synth.search.omega import search_first_errors
from data_synth.search.tree import SearchTree
from vlprm.policy import Policy
from vlprm.schema import Problem, StepTree

ESTIMATORS = {"omega": search_first_errors, "flat": roll_every_prefix}


async def search(problem: Problem, engine: Policy, config: TreeSearchConfig, seed: int) -> StepTree:
    """The tree of one problem. A problem that the policy always or never solves has only root rollouts."""
    tree = SearchTree(problem, engine, config, seed)
    (solutions,) = await tree.roll([()], config.root_rollouts)
    if 0 < tree.root.value < 1:
        await ESTIMATORS[config.estimator](tree, solutions)
    return tree.frozen()
