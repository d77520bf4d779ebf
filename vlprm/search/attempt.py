"""One method's attempt at one problem: its resources, its cost and its result."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt

from vlprm.errors import UserError
from vlprm.policy import Policy, Request, all_answers
from vlprm.policy.critique import Critique, sample_critiques
from vlprm.policy.rollout import OPEN, closed, next_steps, rollouts
from vlprm.policy.usage import CountedPolicy
from vlprm.schema import Aggregation, Problem, Solution, Step, StepScore
from vlprm.scoring import Scorer
from vlprm.scoring.aggregate import aggregated
from vlprm.search.select import Candidate, Shares, rewards_of, surprise_of


@dataclass(frozen=True)
class SearchConfig:
    """Settings shared by all methods.

    Args:
        n: candidates per problem; for stepwise methods, next steps sampled at each depth.
        width: next steps sampled for each kept prefix.
        aggregation: rule that aggregates the step rewards of a candidate or a prefix into one reward.
        budget: maximum tokens per problem of policy, critic and scorer together; nothing new starts once they are
            spent; 0 for no limit.
        rounds: number of correction rounds, in methods that correct candidates.
        unfaulted: Refined Best-of-N, if the critic finds no error in a candidate: draw a new one (resample) or not
            (keep).
        max_steps: maximum number of steps of a solution in stepwise methods.
        max_tokens: maximum number of tokens of one turn of the policy.
        temperature: sampling temperature of the policy.
        seed: random seed of every sample.
    """

    n: PositiveInt = 8
    width: PositiveInt = 4
    aggregation: Aggregation = "min"
    budget: NonNegativeInt = 0
    rounds: PositiveInt = 1
    unfaulted: Literal["resample", "keep"] = "resample"
    max_steps: PositiveInt = 32
    max_tokens: PositiveInt = 1024
    temperature: NonNegativeFloat = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """UserError for values out of range: only the command line checks the types."""
        least = {"n": 1, "width": 1, "rounds": 1, "max_steps": 1, "max_tokens": 1, "budget": 0, "temperature": 0}
        for name, bound in least.items():
            if not getattr(self, name) >= bound:
                raise UserError(f"search.{name} is {getattr(self, name)}; give {bound} or more")


@dataclass(frozen=True)
class Critic:
    """A model that writes critiques, and the question it is asked (`vlprm.prompts.critique_question`)."""

    engine: Policy
    question: str

    async def of(self, problem: Problem, steps: Sequence[Step], key: str) -> list[Critique | None]:
        """A critique of the steps, as a list of one; None if there is no valid one."""
        return await sample_critiques(self.engine, problem, steps, self.question, key, seed=0)


@dataclass(frozen=True)
class Cost:
    """Tokens sampled from the policy and the critic, and tokens read by the scorer (each once if it has a cache); calls
    of each; wall-clock seconds, which include other problems' work in between."""

    policy_tokens: int = 0
    critic_tokens: int = 0
    scorer_tokens: int = 0
    policy_calls: int = 0
    critic_calls: int = 0
    scorer_calls: int = 0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens of all three models."""
        return self.policy_tokens + self.critic_tokens + self.scorer_tokens


@dataclass(frozen=True)
class ScoredSolution:
    """A finished or unfinished solution and the scores of its steps (empty if none were asked for). `read`: tokens that
    the scorer read for it in the last call and that earlier solutions had not already paid for."""

    solution: Solution
    scores: tuple[StepScore | None, ...] = ()
    read: int = 0

    @property
    def candidate(self) -> Candidate:
        """What selectors need of this solution."""
        return Candidate(self.solution.answer, rewards_of(self.scores), None, surprise_of(self.scores))


@dataclass(frozen=True)
class SearchResult:
    """The result of a method on one problem: its candidates, each candidate's share of the choice, and the cost."""

    problem_id: str
    method: str
    pool: tuple[ScoredSolution, ...]
    shares: Shares
    cost: Cost

    @property
    def chosen(self) -> ScoredSolution | None:
        """The first candidate with the largest share; None for an empty pool."""
        return self.pool[self.shares.index(max(self.shares))] if self.pool else None


class Attempt:
    """Tracks the tokens one method spends on one problem. Deterministic given the config: each request has its own
    key."""

    def __init__(
        self, problem: Problem, policy: Policy, scorer: Scorer | None, critic: Critic | None, config: SearchConfig
    ) -> None:
        self.problem, self.config = problem, config
        self.policy = CountedPolicy(policy)
        self._critic = critic and replace(critic, engine=CountedPolicy(critic.engine))
        self._scorer = scorer
        self._scorer_tokens = self._scorer_calls = 0
        self._started = time.monotonic()
        self._requests = itertools.count()

    def cost(self) -> Cost:
        """The cost so far."""
        critic = self._critic.engine if self._critic else CountedPolicy(self.policy)
        assert isinstance(critic, CountedPolicy)
        return Cost(
            self.policy.tokens, critic.tokens, self._scorer_tokens,
            self.policy.calls, critic.calls, self._scorer_calls, time.monotonic() - self._started,
        )  # fmt: skip

    @property
    def may_go_on(self) -> bool:
        """Whether the token budget is not spent yet."""
        return not self.config.budget or self.cost().tokens < self.config.budget

    async def sampled(self, n: int) -> list[Solution]:
        """The first `n` solutions of the pool that all methods share."""
        return await rollouts(self.policy, self._request(n, self.problem.id))

    async def continued(self, beginnings: Sequence[Sequence[Step]]) -> list[Solution]:
        """One full solution per prefix; a prefix that ends with an answer is already full."""
        requests = [replace(self._request(1), steps=tuple(steps)) for steps in beginnings]
        return await all_answers(map(self._whole, requests))

    async def _whole(self, request: Request) -> Solution:
        if request.steps and request.steps[-1].kind == "answer":
            return closed(self.problem, request.steps, tokens=0)
        (solution,) = await rollouts(self.policy, request)
        return solution

    async def grown(self, beginnings: Sequence[Solution], counts: Sequence[int]) -> list[Solution]:
        """`counts[i]` solutions per prefix, each one step longer."""
        requests = [(self._request(n), so_far) for so_far, n in zip(beginnings, counts, strict=True) if n]
        found = await all_answers(next_steps(self.policy, request, so_far) for request, so_far in requests)
        return [self._limited(solution) for of_beginning in found for solution in of_beginning]

    async def scored(self, solutions: Sequence[Solution]) -> list[ScoredSolution]:
        """The solutions with their step scores. UserError without a reward model."""
        if self._scorer is None:
            raise UserError("this method needs a reward model; pass a scorer")
        if not solutions:
            return []
        found = await self._scorer.score(self.problem, [solution.steps for solution in solutions], attempt=self)
        self._scorer_calls += 1
        self._scorer_tokens += found.tokens
        parts = zip(solutions, found.steps, found.read, strict=True)
        return [ScoredSolution(solution, tuple(scores), read) for solution, scores, read in parts]

    async def criticised(self, solutions: Sequence[Solution]) -> list[Critique | None]:
        """One critique per solution; None if it cannot be parsed. UserError without a critic."""
        if self._critic is None:
            raise UserError("this method needs a critic, a model trained to write critiques; pass one")
        critic = self._critic
        keys = [self._request(1).key for _ in solutions]
        asked = (critic.of(self.problem, s.steps, key) for s, key in zip(solutions, keys, strict=True))
        return [critique for (critique,) in await all_answers(asked)]

    def value(self, scored: ScoredSolution) -> float:
        """The reward of a solution or prefix; -inf without a score, or if it ended without an answer."""
        failed = scored.solution.stop != OPEN and scored.solution.answer is None
        rewards = [None if score is None else score.correct for score in scored.scores]
        reward = None if failed else aggregated(rewards, self.config.aggregation)
        return -math.inf if reward is None else reward

    def _limited(self, solution: Solution) -> Solution:
        too_long = solution.stop == OPEN and len(solution.steps) >= self.config.max_steps
        return replace(solution, stop="max_steps") if too_long else solution

    def _request(self, n: int, key: str = "") -> Request:
        key = key or f"{self.problem.id}/{next(self._requests)}"
        return Request(self.problem, (), n, key, self.config.seed, self.config.temperature, self.config.max_tokens)
