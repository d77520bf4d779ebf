"""One method's attempt at one problem: what it may use, what it has used, and what it found."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt

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
    """What the methods share.

    Args:
        n: candidates of a problem; for methods that go step by step, the steps that are sampled at each depth.
        width: of these, the next steps that one kept beginning is given.
        aggregation: rule by which a candidate's step rewards, or a beginning's, become one.
        budget: tokens that a problem may cost, of policy, critic and scorer together; no more is begun when they are
            spent (0: no limit).
        rounds: of corrections, where a method makes any.
        unfaulted: what Refined Best-of-N does with a candidate that the critic finds no fault with: sample another
            beside it, or leave it at that.
        max_steps: of a solution that is grown step by step.
        max_tokens: of one turn of the policy.
        temperature: of its sampling.
        seed: decides every sample.
    """

    n: PositiveInt = 8
    width: PositiveInt = 4
    aggregation: Aggregation = "min"
    budget: NonNegativeInt = 0
    rounds: PositiveInt = 1
    unfaulted: Literal["resample", "keep"] = "resample"
    max_steps: PositiveInt = 32
    max_tokens: PositiveInt = 160
    temperature: NonNegativeFloat = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """The command line has checked these; Python has not."""
        least = {"n": 1, "width": 1, "rounds": 1, "max_steps": 1, "max_tokens": 1, "budget": 0, "temperature": 0}
        for name, bound in least.items():
            if not getattr(self, name) >= bound:
                raise ValueError(f"search.{name} is {getattr(self, name)}; give {bound} or more")


@dataclass(frozen=True)
class Critic:
    """A model that writes critiques, and what it is asked (`vlprm.prompts.critique_question`)."""

    engine: Policy
    question: str

    async def of(self, problem: Problem, steps: Sequence[Step], key: str) -> list[Critique | None]:
        return await sample_critiques(self.engine, problem, steps, self.question, key, seed=0)


@dataclass(frozen=True)
class Cost:
    """Tokens that were sampled from the policy and the critic, and read by the scorer (each once, where it keeps what
    it read); calls of each; seconds from beginning to end, others' work in between included."""

    policy_tokens: int = 0
    critic_tokens: int = 0
    scorer_tokens: int = 0
    policy_calls: int = 0
    critic_calls: int = 0
    scorer_calls: int = 0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        return self.policy_tokens + self.critic_tokens + self.scorer_tokens


@dataclass(frozen=True)
class ScoredSolution:
    """A solution, whole or not, and the scores of its steps; no scores where none were asked for. `read` are the tokens
    that the scorer read for it, when it was last asked, beside those for the solutions before it."""

    solution: Solution
    scores: tuple[StepScore | None, ...] = ()
    read: int = 0

    @property
    def candidate(self) -> Candidate:
        return Candidate(self.solution.answer, rewards_of(self.scores), None, surprise_of(self.scores))


@dataclass(frozen=True)
class SearchResult:
    """What a method found of a problem: its candidates, each one's share of the choice, and what it cost."""

    problem_id: str
    method: str
    pool: tuple[ScoredSolution, ...]
    shares: Shares
    cost: Cost

    @property
    def chosen(self) -> ScoredSolution | None:
        """The first of those with the largest share."""
        return self.pool[self.shares.index(max(self.shares))] if self.pool else None


class Attempt:
    """Its state is what was spent. Equal attempts find equal candidates: each request has a key of its own."""

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
        critic = self._critic.engine if self._critic else CountedPolicy(self.policy)
        assert isinstance(critic, CountedPolicy)
        return Cost(
            self.policy.tokens, critic.tokens, self._scorer_tokens,
            self.policy.calls, critic.calls, self._scorer_calls, time.monotonic() - self._started,
        )  # fmt: skip

    @property
    def may_go_on(self) -> bool:
        return not self.config.budget or self.cost().tokens < self.config.budget

    async def sampled(self, n: int) -> list[Solution]:
        """The first `n` solutions of the pool that every method draws from."""
        return await rollouts(self.policy, self._request(n, self.problem.id))

    async def continued(self, beginnings: Sequence[Sequence[Step]]) -> list[Solution]:
        """A whole solution for each beginning; one that answers is whole."""
        requests = [replace(self._request(1), steps=tuple(steps)) for steps in beginnings]
        return await all_answers(map(self._whole, requests))

    async def _whole(self, request: Request) -> Solution:
        if request.steps and request.steps[-1].kind == "answer":
            return closed(self.problem, request.steps, tokens=0)
        (solution,) = await rollouts(self.policy, request)
        return solution

    async def grown(self, beginnings: Sequence[Solution], counts: Sequence[int]) -> list[Solution]:
        """Of each beginning, so many with one more step."""
        requests = [(self._request(n), so_far) for so_far, n in zip(beginnings, counts, strict=True) if n]
        found = await all_answers(next_steps(self.policy, request, so_far) for request, so_far in requests)
        return [self._limited(solution) for of_beginning in found for solution in of_beginning]

    async def scored(self, solutions: Sequence[Solution]) -> list[ScoredSolution]:
        """The solutions with the scores of their steps."""
        if self._scorer is None:
            raise ValueError("this method needs a reward model; give one")
        if not solutions:
            return []
        found = await self._scorer.score(self.problem, [solution.steps for solution in solutions], attempt=self)
        self._scorer_calls += 1
        self._scorer_tokens += found.tokens
        parts = zip(solutions, found.steps, found.read, strict=True)
        return [ScoredSolution(solution, tuple(scores), read) for solution, scores, read in parts]

    async def criticised(self, solutions: Sequence[Solution]) -> list[Critique | None]:
        """A critique of each; None where there is none that can be read."""
        if self._critic is None:
            raise ValueError("this method needs a critic, a model that has learnt to write critiques; give one")
        critic = self._critic
        keys = [self._request(1).key for _ in solutions]
        asked = (critic.of(self.problem, s.steps, key) for s, key in zip(solutions, keys, strict=True))
        return [critique for (critique,) in await all_answers(asked)]

    def value(self, scored: ScoredSolution) -> float:
        """What a solution, or a beginning of one, is worth; without a score, or ended without an answer, less than all
        others."""
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
