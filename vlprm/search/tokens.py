"""What a search spends, and plain best-of-N at the same cost: the first candidates of a pool that it pays for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, NamedTuple

from vlprm.search.attempt import Cost

Unit = Literal["tokens", "FLOPs"]
UNITS: tuple[Unit, ...] = ("tokens", "FLOPs")


@dataclass(frozen=True)
class Parameters:
    """Number of parameters of each model; 0 for a model that is not used."""

    policy: int
    scorer: int = 0
    critic: int = 0


class Spend(NamedTuple):
    """Tokens that all models sample and read, images included, and the floating point operations for them: 2 per token
    and parameter. None if the number of parameters is unknown."""

    sampled: float
    read: float
    flops: float | None

    @property
    def tokens(self) -> float:
        """Tokens sampled and read."""
        return self.sampled + self.read

    def of(self, unit: Unit) -> float:
        """The amount in a unit."""
        if unit == "tokens":
            return self.tokens
        assert self.flops is not None
        return self.flops


def spend_of(cost: Cost, parameters: Parameters | None) -> Spend:
    """What a search spent."""
    drawn = pool_spend(cost.policy_sampled, cost.policy_read, cost.scorer_read, parameters)
    flops = drawn.flops
    if flops is not None and parameters is not None:
        flops += 2.0 * (cost.critic_sampled + cost.critic_read) * parameters.critic
    return Spend(drawn.sampled + cost.critic_sampled, drawn.read + cost.critic_read, flops)


def pool_spend(sampled: float, read: float, scored: float, parameters: Parameters | None) -> Spend:
    """The cost of tokens that the policy samples, that it reads, and that the scorer reads."""
    if parameters is None:
        return Spend(sampled, read + scored, None)
    flops = 2.0 * ((sampled + read) * parameters.policy + scored * parameters.scorer)
    return Spend(sampled, read + scored, flops)


def spend_of_first(
    candidates: Sequence[tuple[int, int, int]], prompt: int, parameters: Parameters | None
) -> list[Spend]:
    """What the first 1, 2, ... candidates of a pool cost. A candidate has the numbers of tokens that the policy
    sampled, that it read again after zooms, and that the scorer read. `prompt`: tokens that the policy read for all of
    them together."""
    sums = accumulate(candidates, lambda a, b: (a[0] + b[0], a[1] + b[1], a[2] + b[2]))
    return [pool_spend(sampled, prompt + read, scored, parameters) for sampled, read, scored in sums]


def affordable(first: Sequence[Spend], spent: Spend, unit: Unit) -> int:
    """Number of candidates that cost at most as much as what was spent, at least one. `first`: what the first 1, 2, ...
    cost."""
    return max(1, bisect_right([spend.of(unit) for spend in first], spent.of(unit)))


def is_too_small(first: Sequence[Spend], spent: Spend, unit: Unit) -> bool:
    """Whether what was spent pays for the whole pool and for one more candidate."""
    whole = first[-1].of(unit)
    return spent.of(unit) - whole >= whole / len(first)
