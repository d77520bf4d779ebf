"""Fuse Monte Carlo counts and a judge's verdicts into step targets. Pure functions over stored evidence.

A rule gives each step of a solution the probability that it is correct, or None where it has no evidence. What comes
after the first error has no label: most of it only carries that error on.
The last step of a complete solution is labelled by its answer, whatever the rule: that much is known.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from vlprm.schema import StepLabel, Verdict

# Beta shapes of the rate at which rollouts succeed from a prefix that can still reach the answer, and from one that an
# error has spoilt.
OPEN_SHAPE = (1.5, 1.0)
SPOILT_SHAPE = (0.3, 6.0)
MIN_ROLLOUTS = 3


@dataclass(frozen=True)
class JudgeQuality:
    """What is believed of the judge and of the steps it is asked about.

    `prior` is the share of correct steps; `harmless` the share of wrong ones from which the answer is still reached (a
    cell misread that nobody counts): counts alone cannot tell those from correct ones. `accuracy` is how often the
    judge is right, the same on correct and on wrong steps. It has to be given: where rollouts succeed, a false alarm of
    the judge and a harmless error look the same, and an estimate runs away to a judge who is never wrong.
    """

    prior: float = 0.8
    harmless: float = 0.3
    accuracy: float = 0.9


def mc_rule(label: StepLabel, quality: JudgeQuality) -> float | None:
    """The share of right rollouts among those with a result (soft Monte Carlo), from `MIN_ROLLOUTS` on."""
    return label.mc_correct / label.mc_valid if label.mc_valid >= MIN_ROLLOUTS else None


def judge_rule(label: StepLabel, quality: JudgeQuality) -> float | None:
    return None if label.judge is None else float(label.judge.correct)


def consensus_rule(label: StepLabel, quality: JudgeQuality) -> float | None:
    """VL-PRM's reading (arXiv 2509.23250): the judge's errors stand; what it calls correct is kept where rollouts
    agree, and has no label where none of them was right, or where there are too few."""
    if label.judge is None or not label.judge.correct:
        return judge_rule(label, quality)
    value = mc_rule(label, quality)
    return 1.0 if value else None


def hybrid_rule(label: StepLabel, quality: JudgeQuality) -> float | None:
    """The Monte Carlo value, bounded by the judge: 0 where it sees an error. With too few rollouts, the judge alone."""
    value, verdict = mc_rule(label, quality), judge_rule(label, quality)
    known = [v for v in (value, verdict) if v is not None]
    return min(known, default=None)


def bayes_rule(label: StepLabel, quality: JudgeQuality) -> float | None:
    """Posterior that the step is correct: Beta-Binomial evidence of the counts times that of the judge's verdict."""
    if label.judge is None and label.mc_valid == 0:
        return None
    correct, harmful, harmless = _weights(label, quality)
    return correct / (correct + harmful + harmless)


def _weights(label: StepLabel, quality: JudgeQuality) -> tuple[float, float, float]:
    """Joint weights of the evidence with a correct step, with a harmful error, and with a harmless one."""
    still_open = _beta_binomial(label.mc_correct, label.mc_valid, *OPEN_SHAPE)
    spoilt = _beta_binomial(label.mc_correct, label.mc_valid, *SPOILT_SHAPE)
    if label.judge is None:
        says_of_correct = says_of_wrong = 1.0
    else:
        says_of_correct = quality.accuracy if label.judge.correct else 1 - quality.accuracy
        says_of_wrong = 1 - says_of_correct
    wrong = (1 - quality.prior) * says_of_wrong
    return (
        quality.prior * still_open * says_of_correct,
        wrong * (1 - quality.harmless) * spoilt,
        wrong * quality.harmless * still_open,
    )


Rule = Literal["mc", "judge", "consensus", "hybrid", "bayes"]
RULES: dict[Rule, Callable[[StepLabel, JudgeQuality], float | None]] = {
    "mc": mc_rule,
    "judge": judge_rule,
    "consensus": consensus_rule,
    "hybrid": hybrid_rule,
    "bayes": bayes_rule,
}


def is_wrong(rule: str, target: float) -> bool:
    """Whether a target calls the step wrong. A Monte Carlo value does so where no rollout was right (Math-Shepherd's
    hard estimate); a posterior where it is below one half."""
    return target == 0.0 if rule in ("mc", "hybrid") else target < 0.5


def estimate_quality(labels: Sequence[StepLabel], accuracy: float, rounds: int = 50) -> JudgeQuality:
    """How many steps are correct, and how many errors harmless, given the judge's accuracy: by
    expectation-maximisation over verdicts and counts, without gold labels (after Dawid and Skene, 1979).
    """
    judged = [label for label in labels if label.judge is not None]
    quality = JudgeQuality(accuracy=accuracy)
    for _ in range(rounds if judged else 0):
        correct = harmful = harmless = 0.0
        for label in judged:
            weights = _weights(label, quality)
            c, bad, idle = (w / sum(weights) for w in weights)
            correct, harmful, harmless = correct + c, harmful + bad, harmless + idle
        # One pseudo-count on each side: a rate of exactly 0 or 1 would let one witness overrule everything.
        quality = JudgeQuality(
            prior=(correct + 1) / (len(judged) + 2),
            harmless=(harmless + 1) / (harmful + harmless + 2),
            accuracy=accuracy,
        )
    return quality


def fuse(path: Sequence[StepLabel], rule: Rule, quality: JudgeQuality, right: bool | None) -> list[StepLabel]:
    """Labels of one complete solution with their targets, and the kinds of the wrong ones.

    `right` says whether the solution's answer is the gold one (None: no result, and no label for the last step).
    ValueError on an unknown rule.
    """
    if rule not in RULES:
        raise ValueError(f"unknown fusion rule {rule!r}; known: {', '.join(RULES)}")
    fused: list[StepLabel] = []
    found = False
    for position, label in enumerate(path):
        target = None if found else RULES[rule](label, quality)
        if position == len(path) - 1:
            target = None if right is None else float(right)
        wrong = target is not None and is_wrong(rule, target)
        kind = label.judge.error_kind if wrong and label.judge else None
        fused.append(dataclasses.replace(label, target=target, error_kind=kind, rule=rule))
        found = found or wrong
    return fused


def fuse_tree(
    labels: Sequence[StepLabel],
    paths: Sequence[tuple[Sequence[int], bool | None]],
    rule: Rule,
    quality: JudgeQuality,
) -> list[StepLabel]:
    """Labels of a tree's nodes by a rule, whatever rule made them before. `paths` has the nodes of each complete
    solution and whether its answer is right; a node on none of them has no target."""
    fused = [dataclasses.replace(label, target=None, error_kind=None, rule=rule) for label in labels]
    for nodes, right in paths:
        for node, label in zip(nodes, fuse([labels[n] for n in nodes], rule, quality, right), strict=True):
            fused[node] = label
    return fused


def with_verdicts(path: Sequence[StepLabel], verdicts: Sequence[Verdict | None]) -> list[StepLabel]:
    return [dataclasses.replace(label, judge=verdict) for label, verdict in zip(path, verdicts, strict=True)]


def _beta_binomial(correct: int, valid: int, a: float, b: float) -> float:
    """Likelihood of the counts, up to the binomial coefficient that both hypotheses share."""
    return math.exp(_log_beta(correct + a, valid - correct + b) - _log_beta(a, b))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
