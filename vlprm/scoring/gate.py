"""The outcome of a solution, gated by its step rewards.

A policy that is paid the rewards themselves learns in the end what the reward model prefers, not what is right: several
groups report runs that end below those on the outcome alone (URSA, PURE, VeriGate). A gate pays the outcome, and less
where the reward model finds that a right solution went wrong on its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

DROP, KEEP = 0.3, 0.5  # as in PS-GRPO


def gated(
    outcome: float | None, rewards: Sequence[float | None] | None, drop: float = DROP, keep: float = KEEP
) -> float | None:
    """PS-GRPO's reward (URSA, arXiv 2501.04686): a right solution whose step rewards once fall by at least the share
    `drop` from one step to the next is paid `keep`; other solutions their outcome, 1 (right), 0 (wrong) or None.
    Without step rewards, the outcome."""
    if not outcome or rewards is None:
        return outcome
    return keep if largest_drop(rewards) >= drop else outcome


def largest_drop(rewards: Sequence[float | None]) -> float:
    """The largest relative fall of the reward between two consecutive known steps; 0 if it never falls."""
    known = [reward for reward in rewards if reward is not None]
    return max(((a - b) / max(a, 1e-6) for a, b in pairwise(known)), default=0.0)
