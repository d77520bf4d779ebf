"""Search: spend test-time compute on one problem with a policy and a scorer.

    found = await solve("best_of_n", problem, LocalPolicy(policy), LocalScorer(reward_model), SearchConfig(n=8))
    print(found.chosen.solution.answer, found.cost)

A method fills a pool of candidates and chooses from it: an entry of `METHODS`, or the `METHOD` of a module named by its
path. To search many problems concurrently, await them together: policies and scorers batch the waiting requests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from vlprm.policy import Policy
from vlprm.runs.plugins import known_or_in_module
from vlprm.schema import Aggregation, Problem
from vlprm.scoring import Scorer
from vlprm.search import allocated, guided, refined, regenerated, sampled, select
from vlprm.search.attempt import Attempt, Cost, Critic, ScoredSolution, SearchConfig, SearchResult
from vlprm.search.select import Candidate, Shares, voters

__all__ = ["METHODS", "Attempt", "Cost", "Critic", "Method", "ScoredSolution", "SearchConfig", "SearchResult", "solve"]

Choose = Callable[[Sequence[Candidate], Aggregation], Shares]


@dataclass(frozen=True)
class Method:
    """How candidates are found and how one is chosen. With `votes`, equal answers count together."""

    find: Callable[[Attempt], Awaitable[list[ScoredSolution]]]
    choose: Choose = select.best_of_n
    needs_scorer: bool = True
    needs_critic: bool = False
    votes: bool = False


def _random(pool: Sequence[Candidate], aggregation: Aggregation) -> Shares:
    return select.sample(pool)


def _majority(pool: Sequence[Candidate], aggregation: Aggregation) -> Shares:
    return select.majority(pool)


METHODS: dict[str, Method] = {
    "pass_at_1": Method(sampled.one, _random, needs_scorer=False),
    "self_consistency": Method(sampled.unscored, _majority, needs_scorer=False, votes=True),
    "adaptive": Method(sampled.adaptive, _majority, needs_scorer=False, votes=True),
    "best_of_n": Method(sampled.scored),
    "adaptive_best_of_n": Method(allocated.adaptive_best_of_n),
    "weighted_majority": Method(sampled.scored, select.weighted_majority, votes=True),
    "greedy": Method(guided.greedy),
    "step_beam": Method(guided.step_beam),
    "duplicating_beam": Method(guided.duplicating_beam),
    "dvts": Method(guided.dvts),
    "rebase": Method(guided.rebase),
    "cut_and_regenerate": Method(regenerated.regenerated),
    "refined_best_of_n": Method(refined.refined, needs_critic=True),
}


def method_named(name: str) -> Method:
    """The method of that name, or the `METHOD` of the module at that path. Names come from the command line, never from
    data. UserError suggests the nearest method."""
    return known_or_in_module(name, METHODS, "METHOD", "method", "docs/examples/twice_the_best.py")


async def solve(
    name: str,
    problem: Problem,
    policy: Policy,
    scorer: Scorer | None = None,
    config: SearchConfig | None = None,
    critic: Critic | None = None,
) -> SearchResult:
    """Run a method on one problem. Never raises for what the policy writes: a candidate without an answer counts as no
    result, and a pool without answers has no right choice. UserError if the method needs a reward model or a critic and
    none is given."""
    method, config = method_named(name), config or SearchConfig()
    attempt = Attempt(problem, policy, scorer if method.needs_scorer else None, critic, config)
    try:
        pool = await method.find(attempt)
    finally:
        if scorer is not None:
            scorer.forget(problem, attempt)
    candidates = [s.candidate for s in pool]
    candidates = voters(problem, candidates) if method.votes else candidates
    shares = method.choose(candidates, config.aggregation) if pool else []
    return SearchResult(problem.id, name, tuple(pool), shares, attempt.cost())
