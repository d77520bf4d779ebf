"""Fuse Monte Carlo counts and the verdicts of sources (judges, checkers) into step targets. Pure functions over stored
evidence.

A rule gives each step of a tree the probability that it is correct, or None without evidence. Steps after the first
error also get targets; training decides whether to use them. The last step of a complete solution is labelled by its
answer under every rule.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from vlprm.errors import UserError
from vlprm.labels.judge_reliability import MIN_VALID, TreeEvidence, posterior_correct
from vlprm.labels.sources import Reliability
from vlprm.schema import StepLabel, Verdict, path_to

INJECTED = "injected"  # the source of the votes on steps that data_synth.inject made
HIGH_VALUE = 0.5  # least value of a step offered as a correction
PROGRESS = 0.8  # GenPRM's least ratio of a correct step's value to its parent's (arXiv 2504.00891)
# Rules whose targets are Monte Carlo values: shares of right rollouts, of our own or as a dataset has them.
MONTE_CARLO = ("mc", "hybrid", "mm-prm", "omega-prm", "math-shepherd", "dream-prm", "vil-reward")


def mc_rule(label: StepLabel) -> float | None:
    """Soft Monte Carlo: the share of right rollouts among those with a result; None below MIN_VALID rollouts."""
    return label.mc_correct / label.mc_valid if label.mc_valid >= MIN_VALID else None


def seen_value(label: StepLabel) -> float | None:
    """The share of right rollouts from or through the step; None below MIN_VALID. Not a Monte Carlo value, see
    `StepLabel`."""
    return label.seen_correct / label.seen_valid if label.seen_valid >= MIN_VALID else None


def judge_rule(label: StepLabel) -> float | None:
    """The verdict of the first source that spoke, as 1 or 0; None without a verdict."""
    return next((float(vote.correct) for vote in label.votes.values()), None)


def _unanimous(label: StepLabel) -> float | None:
    """0 if any source sees an error, 1 if none does; None without a verdict."""
    return min((float(vote.correct) for vote in label.votes.values()), default=None)


def consensus_rule(label: StepLabel) -> float | None:
    """The rule of VL-PRM (arXiv 2509.23250): 0 if any source sees an error; 1 if none does and a rollout succeeds;
    None if no rollout succeeds or there are too few."""
    if not _unanimous(label):
        return _unanimous(label)
    return 1.0 if seen_value(label) else None


def hybrid_rule(label: StepLabel) -> float | None:
    """The Monte Carlo value, but 0 if any source sees an error. With too few rollouts, the verdicts alone."""
    known = [v for v in (mc_rule(label), _unanimous(label)) if v is not None]
    return min(known, default=None)


def _of_each_step(rule: Callable[[StepLabel], float | None]) -> TreeRule:
    return lambda evidence, quality: [rule(label) for label in evidence.labels]


def outcome_rule(evidence: TreeEvidence, quality: Reliability) -> list[float | None]:
    """The share of right solutions among those through the step that have a result: the label of an outcome reward
    model, and of OVM (arXiv 2311.09724). None without such a solution."""
    right, known = [0] * len(evidence.labels), [0] * len(evidence.labels)
    for nodes, is_right in _solutions(evidence):
        for node in nodes:
            right[node] += is_right is True
            known[node] += is_right is not None
    return [r / k if k else None for r, k in zip(right, known, strict=True)]


def relative_rule(evidence: TreeEvidence, quality: Reliability) -> list[float | None]:
    """The step's Monte Carlo value divided by its parent's, at most 1 (GenPRM, arXiv 2504.00891). None if either is
    unknown, or if the parent's is 0: a step after an error that is never put right has no progress to lose."""
    values = [mc_rule(label) for label in evidence.labels]
    before = [mc_rule(evidence.root) if parent < 0 else values[parent] for parent in evidence.parents]
    return [None if value is None or not b else min(1.0, value / b) for value, b in zip(values, before, strict=True)]


def whole_rule(evidence: TreeEvidence, quality: Reliability) -> list[float | None]:
    """Consensus of whole solutions (Qwen2.5-Math-PRM, arXiv 2501.07301): a solution is kept if counts and sources agree
    on its first wrong step, or that it has none. A step of a kept solution is wrong if any source says so; other steps
    have no target."""
    kept = {
        node
        for nodes, right in _solutions(evidence)
        if right is not None and _agree(evidence, nodes, right)
        for node in nodes
    }
    return [_unanimous(label) if node in kept else None for node, label in enumerate(evidence.labels)]


def _solutions(evidence: TreeEvidence) -> list[tuple[list[int], bool | None]]:
    """The steps of each complete solution, and whether its answer is right: all rollouts that end in a last step have
    the same answer."""
    inner, found = set(evidence.parents), []
    for leaf, label in enumerate(evidence.labels):
        if leaf not in inner:
            right = label.seen_correct > 0 if label.seen_valid else None
            found.append((path_to(leaf, evidence.parents), right))
    return found


def _agree(evidence: TreeEvidence, nodes: Sequence[int], right: bool) -> bool:
    """Whether counts and sources find the same first wrong step in a solution. One that either does not know breaks the
    agreement."""
    for place, node in enumerate(nodes):
        label, verdict = evidence.labels[node], _unanimous(evidence.labels[node])
        reached = right if place == len(nodes) - 1 else label.seen_correct > 0
        if verdict is None or reached != bool(verdict):
            return False
        if not reached:
            return place == len(nodes) - 1 or label.seen_valid >= MIN_VALID
    return True


Rule = Literal["mc", "outcome", "relative", "judge", "consensus", "whole", "hybrid", "bayes"]
TreeRule = Callable[[TreeEvidence, Reliability], list[float | None]]
RULES: dict[Rule, TreeRule] = {
    "mc": _of_each_step(mc_rule),
    "outcome": outcome_rule,
    "relative": relative_rule,
    "judge": _of_each_step(judge_rule),
    "consensus": _of_each_step(consensus_rule),
    "whole": whole_rule,
    "hybrid": _of_each_step(hybrid_rule),
    "bayes": posterior_correct,
}


def wrong_below(rule: str) -> float:
    """The bound below which a target of a rule calls a step wrong; a target of 0 always does. A Monte Carlo value is
    the chance that rollouts from the step are right, which is often low after a correct step, so its bound is 0
    (Math-Shepherd's hard estimate). The bound of `relative` is PROGRESS. Any other target is the probability that the
    step is correct, and its bound is one half."""
    if rule in MONTE_CARLO:
        return 0.0
    return PROGRESS if rule == "relative" else 0.5


def rule_calls_wrong(rule: str, target: float) -> bool:
    """Whether a target of a rule calls the step wrong, see `wrong_below`."""
    return target == 0.0 or target < wrong_below(rule)


def called_wrong(label: StepLabel) -> bool:
    """Whether a label has a target that calls the step wrong."""
    return label.target is not None and rule_calls_wrong(label.rule, label.target)


def fuse_tree(
    evidence: TreeEvidence, paths: Sequence[tuple[Sequence[int], bool | None]], rule: Rule, quality: Reliability
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
        last = nodes[-1]
        injected = INJECTED in evidence.labels[last].votes  # it ends no solution, so no answer labels it
        targets[last] = known[last] if injected else None if right is None else float(right)
    return [_fused(label, target, rule) for label, target in zip(evidence.labels, targets, strict=True)]


def _fused(label: StepLabel, target: float | None, rule: str) -> StepLabel:
    wrong = target is not None and rule_calls_wrong(rule, target)
    alarm = label.said(correct=False) if wrong else None
    return dataclasses.replace(label, target=target, error_kind=alarm.error_kind if alarm else None, rule=rule)


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


def with_votes(labels: Sequence[StepLabel], said: Mapping[str, Sequence[Verdict | None]]) -> list[StepLabel]:
    """The labels with the verdicts of each source, by its name, after the votes that they have."""
    return [
        dataclasses.replace(
            label, votes={**label.votes, **{name: vote for name, votes in said.items() if (vote := votes[node])}}
        )
        for node, label in enumerate(labels)
    ]
