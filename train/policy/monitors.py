"""What to watch while a policy learns from rewards: numbers of each round, and the stop of a run that exploits its
reward.

A reward model that is exploited shows here before it shows in a benchmark: solutions get shorter or longer, steps
fewer, zooms many or none, the reward rises above the truth, and the model's scores no longer agree with it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from train.policy.advantages import StepNumbers
from train.policy.grpo_config import GrpoConfig, TermConfig
from train.policy.measuring import every_step_right
from train.policy.rewards import is_formatted
from train.policy.rounds import Rated, Rollouts
from vlprm.metrics import auroc
from vlprm.policy.critique import RIGHT
from vlprm.zoom.policy import REFUSALS

ERRORS = 2.0  # standard errors by which validation must have fallen
SHARED = 1.2  # solutions per first step, below which a group is hardly a tree


def round_metrics(rollouts: Rollouts, terms: Sequence[TermConfig]) -> dict[str, Any]:
    """The numbers of a round. NaN, where there is nothing to count, is left out."""
    paths = [one for of_problem in rollouts for one in of_problem]
    kept = [one for one in paths if not one.excluded]
    results = [one.outcome for one in paths if one.trajectory.stop == "answer" and one.outcome is not None]
    excluded = Counter(one.excluded for one in paths if one.excluded)
    numbers = {
        "rollouts": len(paths),
        "kept": len(kept),
        "right": _mean(results),
        "without_answer": _mean([one.trajectory.stop != "answer" for one in paths]),
        "reward": _mean([reward_of(one, terms) for one in kept]),
        **_texts(kept),
        **verdict_shares(paths),
        **_agreement(kept),
        **_groups(rollouts),
        **{f"excluded_{reason}": number for reason, number in sorted(excluded.items())},
        **{f"refused_{kind}": number for kind, number in sorted(refusals(paths).items())},
    }
    return {name: value for name, value in numbers.items() if not (isinstance(value, float) and math.isnan(value))}


def reward_of(one: Rated, terms: Sequence[TermConfig]) -> float:
    """What the terms pay a path in all, by their weights. Unknown rewards are left out."""
    return math.fsum(
        term.weight * math.fsum(r for r in of_term if r is not None)
        for term, of_term in zip(terms, one.rewards, strict=True)
        if of_term is not None
    )


def refusals(paths: Sequence[Rated]) -> Counter[str]:
    """The numbers of refused zooms by kind: those that ended a solution, and those that the policy was told about."""
    ended = Counter(one.trajectory.stop for one in paths if one.trajectory.stop in REFUSALS)
    told = Counter(
        step.told.partition(":")[0] for one in paths for step in one.trajectory.steps if step.told and not step.region
    )
    return ended + told


def verdict_shares(paths: Sequence[Rated]) -> dict[str, float]:
    """The share of right verdicts among the critiques that can be read, for right steps and for wrong steps; NaN where
    there is none. A critic that calls every step right has 1 and 0."""
    read = [(one.outcome, one.trajectory.answer) for one in paths if one.trajectory.about and one.outcome is not None]
    return {
        "right_steps_passed": _mean([outcome for outcome, said in read if (outcome == 1) == (said == RIGHT)]),
        "wrong_steps_found": _mean([outcome for outcome, said in read if (outcome == 1) != (said == RIGHT)]),
    }


def _texts(kept: Sequence[Rated]) -> dict[str, float]:
    sampled = [[p for turn in one.trajectory.turns for p in turn.logprobs if p is not None] for one in kept]
    solutions = [one.trajectory for one in kept if not one.trajectory.about]
    return {
        "length": _mean([len(of) for of in sampled]),
        "steps": _mean([len(one.steps) for one in solutions]),
        "zooms": _mean([sum(step.region is not None for step in one.steps) for one in solutions]),
        "format": _mean([is_formatted(one.trajectory) for one in kept]),
        # The mean surprise of sampled tokens estimates the entropy at the sampling temperature.
        "entropy": -_mean([p for of in sampled for p in of]),
    }


def _agreement(kept: Sequence[Rated]) -> dict[str, float]:
    """How the reward model agrees with the ground truth of steps and with the outcome."""
    known = [
        (score, right)
        for one in kept
        for score, right in zip(one.scores or (), one.truth or (), strict=False)
        if score is not None and right is not None
    ]
    least = [(min(scores), one.outcome) for one in kept if (scores := _all(one.scores)) and one.outcome is not None]
    whole = [every_step_right(one.outcome, one.truth) for one in kept]
    return {
        "all_steps_right": _mean([value for value in whole if value is not None]),
        "prm_score": _mean([score for score, _ in known]),
        "prm_less_truth": _mean([score - right for score, right in known]),
        "prm_auroc": _auroc(known),
        "prm_outcome_auroc": _auroc(least),
    }


def _auroc(known: Sequence[tuple[float, float]]) -> float:
    return auroc([score for score, _ in known], [right == 1 for _, right in known]) if known else math.nan


def _groups(rollouts: Rollouts) -> dict[str, float]:
    outcomes = [{one.outcome for one in of if one.outcome is not None} for of in rollouts]
    first = [[one.trajectory.steps[:1] for one in of if not one.excluded] for of in rollouts]
    return {
        "level_groups": _mean([len(of) < 2 for of in outcomes]),
        "per_first_step": _mean([len(of) / len(set(of)) for of in first if of]),
    }


def _all(scores: StepNumbers | None) -> list[float]:
    known = [score for score in scores or () if score is not None]
    return known if scores and len(known) == len(scores) else []


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan


def exploited(lines: Sequence[Mapping[str, Any]], fall: float, advice: str) -> str | None:
    """The sentence with which a run stops, if since the best validation the share of right solutions has fallen, by
    more than `fall` and two standard errors, while the mean reward of the rounds has risen; it ends with `advice`."""
    measured = [(at, line) for at, line in enumerate(lines) if "validation_right" in line]
    if len(measured) < 2:
        return None
    (best_at, best), (last_at, last) = max(measured, key=lambda pair: pair[1]["validation_right"]), measured[-1]
    before, after = (
        _mean([line["reward"] for line in part if "reward" in line])
        for part in (lines[: best_at + 1], lines[best_at + 1 : last_at + 1])
    )
    high, low = best["validation_right"], last["validation_right"]
    error = math.sqrt(sum(share * (1 - share) for share in (high, low)) / max(last["validation_problems"], 1))
    if not (high - low > max(fall, ERRORS * error) and after > before):
        return None
    return (
        f"the reward rose from {before:.3f} to {after:.3f} while right answers in validation fell from"
        f" {high:.1%} (round {best['round']}) to {low:.1%} (round {last['round']}): the policy exploits its reward;"
        f" {advice}"
    )


def star_advice(config: GrpoConfig, sharing: float) -> str | None:
    """A warning for tree values of solutions that hardly share a step: the first step would get all credit."""
    if sharing >= SHARED or not any(term.value == "leaves" and term.lam < 1 for term in config.terms):
        return None
    return (
        f"solutions share hardly any first step ({sharing:.2f} per step), so values by leaves with lambda below 1 put"
        " all credit on the first step; set lam: 1, or value: counts"
    )
