"""Fuse Monte Carlo counts and a judge's verdicts into step targets. Pure functions over stored evidence.

A rule gives each step of a tree the probability that it is correct, or None where it has no evidence. What comes
after the first error of a solution has no label: most of it only carries that error on.
The last step of a complete solution is labelled by its answer, whatever the rule: that much is known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

from vlprm.judge_quality import MIN_VALID, JudgeQuality, TreeEvidence, posterior_correct
from vlprm.schema import StepLabel, Verdict

HIGH_VALUE = 0.5  # of a step that is offered as a correction


def mc_rule(label: StepLabel) -> float | None:
    """The share of right rollouts among those with a result (soft Monte Carlo), where there are enough."""
    return label.mc_correct / label.mc_valid if label.mc_valid >= MIN_VALID else None


def judge_rule(label: StepLabel) -> float | None:
    return None if label.judge is None else float(label.judge.correct)


def consensus_rule(label: StepLabel) -> float | None:
    """VL-PRM's reading (arXiv 2509.23250): the judge's errors stand; what it calls correct is kept where rollouts
    agree, and has no label where none of them was right, or where there are too few."""
    if label.judge is None or not label.judge.correct:
        return judge_rule(label)
    value = mc_rule(label)
    return 1.0 if value else None


def hybrid_rule(label: StepLabel) -> float | None:
    """The Monte Carlo value, bounded by the judge: 0 where it sees an error. With too few rollouts, the judge alone."""
    value, verdict = mc_rule(label), judge_rule(label)
    known = [v for v in (value, verdict) if v is not None]
    return min(known, default=None)


def _of_each_step(rule: Callable[[StepLabel], float | None]) -> TreeRule:
    return lambda evidence, quality: [rule(label) for label in evidence.labels]


Rule = Literal["mc", "judge", "consensus", "hybrid", "bayes"]
TreeRule = Callable[[TreeEvidence, JudgeQuality], list[float | None]]
RULES: dict[Rule, TreeRule] = {
    "mc": _of_each_step(mc_rule),
    "judge": _of_each_step(judge_rule),
    "consensus": _of_each_step(consensus_rule),
    "hybrid": _of_each_step(hybrid_rule),
    "bayes": posterior_correct,
}


def is_wrong(rule: str, target: float) -> bool:
    """Whether a target calls the step wrong. A Monte Carlo value does so where no rollout was right (Math-Shepherd's
    hard estimate); a posterior where it is below one half."""
    return target == 0.0 if rule in ("mc", "hybrid") else target < 0.5


def fuse_tree(
    evidence: TreeEvidence, paths: Sequence[tuple[Sequence[int], bool | None]], rule: Rule, quality: JudgeQuality
) -> list[StepLabel]:
    """Labels of a tree's steps with their targets, and the kinds of the wrong ones, whatever rule made them before.

    `paths` has the steps of each complete solution and whether its answer is the gold one (None: no result, and no
    label for its last step). A step on none of them has no target. ValueError on an unknown rule.
    """
    if rule not in RULES:
        raise ValueError(f"unknown fusion rule {rule!r}; known: {', '.join(RULES)}")
    targets = RULES[rule](evidence, quality)
    fused = [dataclasses.replace(label, target=None, error_kind=None, rule=rule) for label in evidence.labels]
    for nodes, right in paths:
        for node, target in _along(nodes, targets, right, rule):
            label = evidence.labels[node]
            wrong = target is not None and is_wrong(rule, target)
            kind = label.judge.error_kind if wrong and label.judge else None
            fused[node] = dataclasses.replace(label, target=target, error_kind=kind, rule=rule)
    return fused


def _along(
    nodes: Sequence[int], targets: Sequence[float | None], right: bool | None, rule: str
) -> list[tuple[int, float | None]]:
    """Each step of a solution with its target there."""
    result: list[tuple[int, float | None]] = []
    found = False
    for node in nodes:
        target = None if found else targets[node]
        if node == nodes[-1]:
            target = None if right is None else float(right)
        result.append((node, target))
        found = found or (target is not None and is_wrong(rule, target))
    return result


def mined_corrections(labels: Sequence[StepLabel], parents: Sequence[int]) -> list[int | None]:
    """For each step that is called wrong, a step that the policy itself wrote in its place and that is right: of those
    with the same parent which are not called wrong, the one with the largest share of right rollouts, if that is high
    enough and of enough rollouts. None elsewhere. Since nothing after a first error is labelled, it is the first
    wrong step that is corrected."""
    children: dict[int, list[int]] = {}
    for node, parent in enumerate(parents):
        children.setdefault(parent, []).append(node)

    def value(node: int) -> float:
        label = labels[node]
        called_right = label.target is not None and not is_wrong(label.rule, label.target)
        return (mc_rule(label) or 0.0) if called_right else 0.0

    corrections: list[int | None] = []
    for node, parent in enumerate(parents):
        target = labels[node].target
        best = max(children[parent], key=value)
        wrong = target is not None and is_wrong(labels[node].rule, target)
        corrections.append(best if wrong and value(best) >= HIGH_VALUE else None)
    return corrections


def with_verdicts(labels: Sequence[StepLabel], verdicts: Sequence[Verdict | None]) -> list[StepLabel]:
    return [dataclasses.replace(label, judge=verdict) for label, verdict in zip(labels, verdicts, strict=True)]
