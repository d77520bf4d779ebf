"""Stepwise methods: at each depth they sample next steps, score the prefixes and continue some of them.

All sample `n` next steps per depth, so that they sample about as much as `n` solutions. If `n` is not a multiple of
`width`, the remaining steps go to the first prefixes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from vlprm.policy.rollout import OPEN
from vlprm.schema import Solution
from vlprm.search.attempt import Attempt, ScoredSolution

# Temperature of REBASE's softmax over prefix rewards; near 0 the best prefix gets nearly all (arXiv 2408.00724).
REBASE_TEMPERATURE = 0.2


async def greedy(attempt: Attempt) -> list[ScoredSolution]:
    """Continue the best of `n` next steps, step by step."""
    return await _step_beam(attempt, beams=1)


async def step_beam(attempt: Attempt) -> list[ScoredSolution]:
    """Step-level beam search, SBS(n / width, width) (AlphaMath, arXiv 2405.03553): the n / width best prefixes
    continue; each one that ends reduces the beam by one. With `narrowing`, the beam also loses that many prefixes at
    each depth, down to one (after PRM-BAS, arXiv 2504.10222)."""
    return await _step_beam(attempt, max(1, attempt.config.n // attempt.config.width))


async def _step_beam(attempt: Attempt, beams: int) -> list[ScoredSolution]:
    """`n` next steps at the first depth, then an equal share of them for each of the `beams` best prefixes. A narrower
    beam gives each of its prefixes more of them."""
    pool: list[ScoredSolution] = []
    going, counts = [_start(attempt)], [attempt.config.n]
    while going and attempt.affords_steps(going, sum(counts)):
        best = _best(attempt, await _grown(attempt, going, counts), beams - len(pool))
        pool += _ended(best)
        counts = _evenly(attempt.config.n, beams)
        beams = max(1, beams - attempt.config.narrowing)
        going = _open(best) if len(pool) < beams else []
        counts = counts[: len(going)]
    return pool + going


async def duplicating_beam(attempt: Attempt) -> list[ScoredSolution]:
    """Beam search that keeps one in `width` of its prefixes and duplicates each to fill the beam (Snell et al., arXiv
    2408.03314; search-and-learn). All solutions that end are candidates."""
    config = attempt.config
    pool: list[ScoredSolution] = []
    going = [_start(attempt)]
    while going and attempt.affords_steps(going, config.n - len(pool)):
        places = config.n - len(pool)
        scored = await _grown(attempt, going, _evenly(places, len(going)))
        pool += _ended(scored)
        going = _best(attempt, _open(scored), math.ceil((config.n - len(pool)) / config.width))
    return pool + going


async def dvts(attempt: Attempt) -> list[ScoredSolution]:
    """Diverse verifier tree search (Beeching et al., 2024): n / width independent trees, which share the `n` next steps
    evenly; each continues with its best one. When the best one has ended, so has its tree, and all ended solutions of
    that depth are candidates."""
    config = attempt.config
    pool: list[ScoredSolution] = []
    counts = _evenly(config.n, max(1, config.n // config.width))
    going = [_start(attempt)] * len(counts)
    while going and attempt.affords_steps(going, sum(counts)):
        scored = iter(await _grown(attempt, going, counts))
        trees = [[next(scored) for _ in range(count)] for count in counts]
        tops = [_best(attempt, tree, 1)[0] for tree in trees]
        pool += [s for tree, top in zip(trees, tops, strict=True) if top.solution.stop != OPEN for s in _ended(tree)]
        counts = [count for count, top in zip(counts, tops, strict=True) if top.solution.stop == OPEN]
        going = _open(tops)
    return pool + going


async def rebase(attempt: Attempt) -> list[ScoredSolution]:
    """Reward-balanced search (Wu et al., arXiv 2408.00724): prefixes get next steps in proportion to the softmax of
    their rewards, best first, until `n` minus the number of ended solutions are distributed."""
    pool: list[ScoredSolution] = []
    going = [_start(attempt)]
    while going and attempt.affords_steps(going, attempt.config.n - len(pool)):
        counts = allotted([attempt.value(s) for s in going], attempt.config.n - len(pool))
        scored = await _grown(attempt, going, counts)
        pool += _ended(scored)
        going = sorted(_open(scored), key=attempt.value, reverse=True) if len(pool) < attempt.config.n else []
    return pool + going


def allotted(values: Sequence[float], places: int) -> list[int]:
    """Number of places for each value; `values` are in descending order."""
    known = [max(value, -1e9) for value in values]
    weights = [math.exp((value - known[0]) / REBASE_TEMPERATURE) for value in known]
    counts: list[int] = []
    for weight in weights:
        counts.append(min(math.ceil(places * weight / sum(weights)), places - sum(counts)))
    return counts


def _start(attempt: Attempt) -> ScoredSolution:
    return ScoredSolution(Solution(attempt.problem.id, (), None, OPEN, 0))


async def _grown(attempt: Attempt, going: Sequence[ScoredSolution], counts: Sequence[int]) -> list[ScoredSolution]:
    return await attempt.scored(await attempt.grown([s.solution for s in going], counts))


def _best(attempt: Attempt, scored: Sequence[ScoredSolution], count: int) -> list[ScoredSolution]:
    """The `count` best; ties keep the order of sampling."""
    return sorted(scored, key=attempt.value, reverse=True)[:count]


def _open(scored: Sequence[ScoredSolution]) -> list[ScoredSolution]:
    return [s for s in scored if s.solution.stop == OPEN]


def _ended(scored: Sequence[ScoredSolution]) -> list[ScoredSolution]:
    return [s for s in scored if s.solution.stop != OPEN]


def _evenly(places: int, parts: int) -> list[int]:
    return [places // parts + (i < places % parts) for i in range(parts)]
