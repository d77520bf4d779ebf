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
from vlprm.prompts import CritiqueTemplate
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
        narrowing: step_beam: prefixes that the beam loses at each depth, until one is left.
        aggregation: rule that aggregates the step rewards of a candidate or a prefix into one reward.
        budget: maximum tokens per problem that policy, critic and scorer sample and read; nothing starts that would
            exceed it, except for the first candidate or depth; 0 for no limit.
        rounds: number of rounds, in methods that correct or cut candidates.
        unfaulted: Refined Best-of-N and cut and regenerate, if no step of a candidate is found wrong: draw a new one
            (resample) or not (keep).
        max_steps: maximum number of steps of a solution in stepwise methods.
        max_tokens: maximum number of tokens of one turn of the policy.
        temperature: sampling temperature of the policy.
        seed: random seed of every sample.
    """

    n: PositiveInt = 8
    width: PositiveInt = 4
    narrowing: NonNegativeInt = 0
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
        least = {"n": 1, "width": 1, "rounds": 1, "max_steps": 1, "max_tokens": 1, "budget": 0, "narrowing": 0,
                 "temperature": 0}  # fmt: skip
        for name, bound in least.items():
            if not getattr(self, name) >= bound:
                raise UserError(f"search.{name} is {getattr(self, name)}; give {bound} or more")


@dataclass(frozen=True)
class Critic:
    """A model that writes critiques, and how it is asked (`CheckpointConfig.critiques`)."""

    engine: Policy
    template: CritiqueTemplate

    async def of(self, problem: Problem, steps: Sequence[Step], key: str) -> list[Critique | None]:
        """A critique of the steps, as a list of one; None without a valid one."""
        return await sample_critiques(self.engine, problem, steps, self.template, key, seed=0)


@dataclass(frozen=True)
class Cost:
    """Tokens that the policy and the critic sample, and that each model reads, images included: those of the prompt of
    each call, and for a scorer with a cache each token once. Calls of each; wall-clock seconds, which include other
    problems' work in between."""

    policy_sampled: int = 0
    policy_read: int = 0
    critic_sampled: int = 0
    critic_read: int = 0
    scorer_read: int = 0
    policy_calls: int = 0
    critic_calls: int = 0
    scorer_calls: int = 0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens sampled and read by all three models."""
        sampled = self.policy_sampled + self.critic_sampled
        return sampled + self.policy_read + self.critic_read + self.scorer_read


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
        self._scorer_read = self._scorer_calls = 0
        self._unscored = self._longest = self._last_scored = self._dearest_critique = 0  # tokens, see `_fits`
        self._started = time.monotonic()
        self._requests = itertools.count()

    def cost(self) -> Cost:
        """The cost so far."""
        critic = self._critic.engine if self._critic else CountedPolicy(self.policy)
        assert isinstance(critic, CountedPolicy)
        return Cost(
            self.policy.sampled, self.policy.read, critic.sampled, critic.read, self._scorer_read,
            self.policy.calls, critic.calls, self._scorer_calls, time.monotonic() - self._started,
        )  # fmt: skip

    def affords(self, n: int, criticised: Sequence[Solution] = ()) -> bool:
        """Whether the budget pays for `n` more solutions, each sampled in a call of its own, and for critiques of the
        solutions in `criticised`. The first solution is always afforded, since its cost is unknown."""
        texts = n * (self.policy.prompt + self._longest * (2 if self._scorer else 1))
        return self._fits(texts + sum(map(self._critique_tokens, criticised)))

    def _critique_tokens(self, solution: Solution) -> int:
        """A critic reads the prompt and the solution so far for each step."""
        steps = len(solution.steps)
        return max(self._dearest_critique, steps * self.policy.prompt + solution.tokens * (steps + 1) // 2)

    def affords_steps(self, going: Sequence[ScoredSolution], n: int) -> bool:
        """Whether the budget pays for `n` more steps after these prefixes, and their scores. The first steps are always
        afforded."""
        prefixes = sum(self.policy.prompt + scored.solution.tokens for scored in going)
        return self._fits(prefixes + n * self._longest + max(self._last_scored, n * self._longest))

    def _fits(self, expected: int) -> bool:
        """Whether the expected tokens fit into the budget, after what is spent and what must still be read to score the
        solutions so far. A text is expected to be as long as the longest so far, a critique as dear as the dearest."""
        if not self.config.budget or not self.policy.calls:
            return True
        prompt = self.policy.prompt if self._scorer and not self._scorer_calls else 0
        left: int = self.config.budget - self.cost().tokens - prompt - self._unscored
        return expected <= left

    async def sampled(self, n: int) -> list[Solution]:
        """The first `n` solutions of the pool that all methods share."""
        return self._measured(await rollouts(self.policy, self._request(n, self.problem.id)))

    async def continued(self, beginnings: Sequence[Sequence[Step]]) -> list[Solution]:
        """One full solution per prefix; a prefix that ends with an answer is already full."""
        requests = [replace(self._request(1), steps=tuple(steps)) for steps in beginnings]
        return self._measured(await all_answers(map(self._whole, requests)))

    def _measured(self, solutions: list[Solution]) -> list[Solution]:
        if self.config.budget:
            lengths = [solution.tokens + self._crop_tokens(solution) for solution in solutions]
            self._longest = max([self._longest, *lengths])
            self._unscored += sum(lengths) if self._scorer else 0
        return solutions

    def _crop_tokens(self, solution: Solution) -> int:
        return sum(self.policy.crop_tokens(self.problem, step.region) for step in solution.steps if step.region)

    async def _whole(self, request: Request) -> Solution:
        if request.steps and request.steps[-1].kind == "answer":
            return closed(self.problem, request.steps, tokens=0)
        (solution,) = await rollouts(self.policy, request)
        return solution

    async def grown(self, beginnings: Sequence[Solution], counts: Sequence[int]) -> list[Solution]:
        """`counts[i]` solutions per prefix, each one step longer."""
        requests = [(self._request(n), so_far) for so_far, n in zip(beginnings, counts, strict=True) if n]
        found = await all_answers(next_steps(self.policy, request, so_far) for request, so_far in requests)
        for (_, so_far), longer in zip(requests, found, strict=True):
            self._longest = max([self._longest, *(solution.tokens - so_far.tokens for solution in longer)])
        return [self._limited(solution) for of_beginning in found for solution in of_beginning]

    async def scored(self, solutions: Sequence[Solution], again: bool = True) -> list[ScoredSolution]:
        """The solutions with their step scores. `again`: they are scored again when they have grown, so the reward
        model keeps what it reads. UserError without a reward model."""
        if self._scorer is None:
            raise UserError("this method needs a reward model; pass a scorer")
        if not solutions:
            return []
        attempt = self if again else None
        found = await self._scorer.score(self.problem, [solution.steps for solution in solutions], attempt)
        prompt = 0 if self._scorer_calls else self.policy.prompt
        self._last_scored = max(0, found.tokens - prompt)
        self._unscored = 0
        self._scorer_calls += 1
        self._scorer_read += found.tokens
        parts = zip(solutions, found.steps, found.read, strict=True)
        return [ScoredSolution(solution, tuple(scores), read) for solution, scores, read in parts]

    async def criticised(self, solutions: Sequence[Solution]) -> list[Critique | None]:
        """One critique per solution; None if it cannot be parsed. UserError without a critic."""
        if self._critic is None:
            raise UserError("this method needs a critic, a model trained to write critiques; pass one")
        critic, before = self._critic, self.cost().tokens
        keys = [self._request(1).key for _ in solutions]
        asked = (critic.of(self.problem, s.steps, key) for s, key in zip(solutions, keys, strict=True))
        found = [critique for (critique,) in await all_answers(asked)]
        self._dearest_critique = max(self._dearest_critique, self.cost().tokens - before)
        return found

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
