"""Fuse Monte Carlo counts and a judge's verdicts into step targets. Pure functions over stored evidence.

A rule gives each step of a tree the probability that it is correct, or None without evidence. Steps after the first
error also get targets; training decides whether to use them. The last step of a complete solution is labelled by its
answer under every rule.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

from vlprm.errors import UserError
from vlprm.labels.judge_reliability import MIN_VALID, JudgeReliability, TreeEvidence, posterior_correct
from vlprm.schema import StepLabel, Verdict

HIGH_VALUE = 0.5  # least value of a step offered as a correction
# Rules whose targets are Monte Carlo values: shares of right rollouts, of our own or as a dataset has them.
MONTE_CARLO = ("mc", "hybrid", "mm-prm", "omega-prm", "math-shepherd")


def mc_rule(label: StepLabel) -> float | None:
    """Soft Monte Carlo: the share of right rollouts among those with a result; None below MIN_VALID rollouts."""
    return label.mc_correct / label.mc_valid if label.mc_valid >= MIN_VALID else None


def seen_value(label: StepLabel) -> float | None:
    """The share of right rollouts from or through the step; None below MIN_VALID. Not a Monte Carlo value, see
    `StepLabel`."""
    return label.seen_correct / label.seen_valid if label.seen_valid >= MIN_VALID else None


def judge_rule(label: StepLabel) -> float | None:
    """The judge's verdict as 1 or 0; None without a verdict."""
    return None if label.judge is None else float(label.judge.correct)


def consensus_rule(label: StepLabel) -> float | None:
    """The rule of VL-PRM (arXiv 2509.23250): 0 if the judge sees an error; 1 if it sees none and a rollout succeeds;
    None if no rollout succeeds or there are too few."""
    if label.judge is None or not label.judge.correct:
        return judge_rule(label)
    return 1.0 if seen_value(label) else None


def hybrid_rule(label: StepLabel) -> float | None:
    """The Monte Carlo value, but 0 if the judge sees an error. With too few rollouts, the judge's verdict alone."""
    value, verdict = mc_rule(label), judge_rule(label)
    known = [v for v in (value, verdict) if v is not None]
    return min(known, default=None)


def _of_each_step(rule: Callable[[StepLabel], float | None]) -> TreeRule:
    return lambda evidence, quality: [rule(label) for label in evidence.labels]


Rule = Literal["mc", "judge", "consensus", "hybrid", "bayes"]
TreeRule = Callable[[TreeEvidence, JudgeReliability], list[float | None]]
RULES: dict[Rule, TreeRule] = {
    "mc": _of_each_step(mc_rule),
    "judge": _of_each_step(judge_rule),
    "consensus": _of_each_step(consensus_rule),
    "hybrid": _of_each_step(hybrid_rule),
    "bayes": posterior_correct,
}


def rule_calls_wrong(rule: str, target: float) -> bool:
    """Whether a target calls the step wrong. A Monte Carlo value is the chance that rollouts from the step are right,
    which is often low after a correct step, so only 0 is wrong (Math-Shepherd's hard estimate). Any other target is
    the probability that the step is correct, and wrong below one half."""
    return target == 0.0 if rule in MONTE_CARLO else target < 0.5


def called_wrong(label: StepLabel) -> bool:
    """Whether a label has a target that calls the step wrong."""
    return label.target is not None and rule_calls_wrong(label.rule, label.target)


def fuse_tree(
    evidence: TreeEvidence, paths: Sequence[tuple[Sequence[int], bool | None]], rule: Rule, quality: JudgeReliability
) -> list[StepLabel]:
    """The labels of a tree's steps with targets by `rule`, and error kinds of the wrong steps. Replaces earlier
    targets.

    `paths` lists, per complete solution, its steps and whether its answer is right (None: no result, so no target for
    its last step). A step outside all paths has no target. UserError on an unknown rule.
    """
    if rule not in RULES:
        raise UserError(f"unknown fusion rule {rule!r}; known: {', '.join(RULES)}")
    targets: list[float | None] = [None] * len(evidence.labels)
    known = RULES[rule](evidence, quality)
    for nodes, right in paths:
        for node in nodes[:-1]:
            targets[node] = known[node]
        targets[nodes[-1]] = None if right is None else float(right)
    return [_fused(label, target, rule) for label, target in zip(evidence.labels, targets, strict=True)]


def _fused(label: StepLabel, target: float | None, rule: str) -> StepLabel:
    wrong = target is not None and rule_calls_wrong(rule, target)
    kind = label.judge.error_kind if wrong and label.judge else None
    return dataclasses.replace(label, target=target, error_kind=kind, rule=rule)


def mined_corrections(labels: Sequence[StepLabel], parents: Sequence[int]) -> list[int | None]:
    """For each first wrong step of a solution, a right step that the policy wrote in its place: the sibling not called
    wrong with the largest share of right rollouts, if that is at least HIGH_VALUE. None for all other steps."""
    children: dict[int, list[int]] = {}
    for node, parent in enumerate(parents):
        children.setdefault(parent, []).append(node)
    wrong = [called_wrong(label) for label in labels]

    def value(node: int) -> float:
        called_right = labels[node].target is not None and not wrong[node]
        return (seen_value(labels[node]) or 0.0) if called_right else 0.0

    corrections: list[int | None] = []
    spoilt: list[bool] = []  # whether the step or one before it is called wrong
    for node, parent in enumerate(parents):
        before = parent >= 0 and spoilt[parent]
        spoilt.append(before or wrong[node])
        best = max(children[parent], key=value)
        corrections.append(best if wrong[node] and not before and value(best) >= HIGH_VALUE else None)
    return corrections


def with_verdicts(labels: Sequence[StepLabel], verdicts: Sequence[Verdict | None]) -> list[StepLabel]:
    """The labels with these verdicts."""
    return [dataclasses.replace(label, judge=verdict) for label, verdict in zip(labels, verdicts, strict=True)]
