"""Fuse Monte Carlo counts and a judge's verdicts into step targets. Pure functions over stored evidence.

A rule gives each step of a solution the probability that it is correct, or None where it has no evidence. After the
first error the counts say nothing of a step (no rollout is right whatever it says), so only the judge is heard there.
The last step of a complete solution is labelled by its answer, whatever the rule: that much is known.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vlprm.schema import StepLabel, Verdict

# Beta shapes of the rate at which rollouts succeed from a prefix without, and with, an error in it.
SOUND_SHAPE = (1.5, 1.0)
FLAWED_SHAPE = (0.3, 6.0)
MIN_ROLLOUTS = 3


@dataclass(frozen=True)
class JudgeQuality:
    """What is believed of the judge: the share of steps that are correct among those asked about, and how often it
    says so of a correct step (sensitivity) and denies it of a wrong one (specificity)."""

    prior: float = 0.8
    sensitivity: float = 0.9
    specificity: float = 0.9


def mc_rule(label: StepLabel, quality: JudgeQuality) -> float | None:
    """The share of right rollouts among those with a result (soft Monte Carlo), from `MIN_ROLLOUTS` on."""
    return label.mc_correct / label.mc_valid if label.mc_valid >= MIN_ROLLOUTS else None


def judge_rule(label: StepLabel, quality: JudgeQuality) -> float | None:
    return None if label.judge is None else float(label.judge.correct)


def bayes_rule(label: StepLabel, quality: JudgeQuality) -> float | None:
    """Posterior that the step is correct: Beta-Binomial evidence of the counts times the judge's of its verdict."""
    if label.judge is None and label.mc_valid == 0:
        return None
    sound, flawed = quality.prior, 1 - quality.prior
    sound *= _beta_binomial(label.mc_correct, label.mc_valid, *SOUND_SHAPE)
    flawed *= _beta_binomial(label.mc_correct, label.mc_valid, *FLAWED_SHAPE)
    if label.judge is not None:
        sound *= quality.sensitivity if label.judge.correct else 1 - quality.sensitivity
        flawed *= 1 - quality.specificity if label.judge.correct else quality.specificity
    return sound / (sound + flawed)


RULES: dict[str, Callable[[StepLabel, JudgeQuality], float | None]] = {
    "mc": mc_rule,
    "judge": judge_rule,
    "bayes": bayes_rule,
}


def is_wrong(rule: str, target: float) -> bool:
    """Whether a target calls the step wrong. Monte Carlo does so where no rollout was right (Math-Shepherd's hard
    estimate); a posterior where it is below one half."""
    return target == 0.0 if rule == "mc" else target < 0.5


def estimate_quality(labels: Sequence[StepLabel], rounds: int = 20) -> JudgeQuality:
    """The judge's quality, from the agreement of its verdicts with the counts: expectation-maximisation without gold.

    After Dawid and Skene (1979), with the counts as the second witness whose reliability the Beta shapes fix.
    """
    judged = [label for label in labels if label.judge is not None]
    quality = JudgeQuality()
    for _ in range(rounds if judged else 0):
        weights = [bayes_rule(label, quality) or 0.0 for label in judged]
        says = [label.judge is not None and label.judge.correct for label in judged]
        sound, flawed = sum(weights), len(judged) - sum(weights)
        # One pseudo-count on each side: a rate of exactly 0 or 1 would let one witness overrule everything.
        quality = JudgeQuality(
            prior=(sound + 1) / (len(judged) + 2),
            sensitivity=(sum(w for w, yes in zip(weights, says, strict=True) if yes) + 1) / (sound + 2),
            specificity=(sum(1 - w for w, yes in zip(weights, says, strict=True) if not yes) + 1) / (flawed + 2),
        )
    return quality


def fuse(path: Sequence[StepLabel], rule: str, quality: JudgeQuality, right: bool | None) -> list[StepLabel]:
    """Labels of one complete solution with their targets, and the kinds of the wrong ones.

    `right` says whether the solution's answer is the gold one (None: no result, and no label for the last step).
    ValueError on an unknown rule.
    """
    if rule not in RULES:
        raise ValueError(f"unknown fusion rule {rule!r}; known: {', '.join(RULES)}")
    fused: list[StepLabel] = []
    found = False
    for position, label in enumerate(path):
        heard = dataclasses.replace(label, mc_correct=0, mc_valid=0, mc_total=0) if found else label
        target = RULES[rule](heard, quality)
        if position == len(path) - 1:
            target = None if right is None else float(right)
        wrong = target is not None and is_wrong(rule, target)
        kind = label.judge.error_kind if wrong and label.judge else None
        fused.append(dataclasses.replace(label, target=target, error_kind=kind, rule=rule))
        found = found or wrong
    return fused


def with_verdicts(path: Sequence[StepLabel], verdicts: Sequence[Verdict | None]) -> list[StepLabel]:
    return [dataclasses.replace(label, judge=verdict) for label, verdict in zip(path, verdicts, strict=True)]


def _beta_binomial(correct: int, valid: int, a: float, b: float) -> float:
    """Likelihood of the counts, up to the binomial coefficient that both hypotheses share."""
    return math.exp(_log_beta(correct + a, valid - correct + b) - _log_beta(a, b))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
