"""Measures of pools and labelled datasets: selection, best-of-n, step rewards, labels.

Pure functions from pools to the plain dicts of `results.json`. A candidate without an answer is counted as no result
and is never right; `vlprm.search.select` defines how selectors treat it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from eval.runs.pools import Pool, curve, known_selectors, step_pairs, worth
from vlprm.data.dataset import LabelledPath
from vlprm.data.ground_truth import labels_and_truth
from vlprm.labels.fusion import rule_calls_wrong, seen_value
from vlprm.metrics import auroc, bootstrap_interval, class_f1s, precision_recall_f1
from vlprm.schema import Aggregation, StepLabel, Verdict
from vlprm.search.select import solution_rewards
from vlprm.tasks import Tasks

THRESHOLD = 0.5  # steps with a lower reward are called wrong; not tuned
PERCEPTUAL = ("perception", "action")


# --- selection


def no_results(pools: Sequence[Pool]) -> dict[str, int]:
    """Number of candidates without an answer, and of problems whose candidates all lack one."""
    return {
        "candidates": sum(right is None for pool in pools for right in pool.right),
        "problems": sum(all(right is None for right in pool.right) for pool in pools),
    }


def selection(
    pools: Sequence[Pool], aggregation: Aggregation, searched: Mapping[str, Sequence[float]] = {}
) -> dict[str, Any]:
    """Accuracy of each selector with its 95% interval over problems and, if the ground truth is known, how often every
    step of its choice is right; then the accuracy of the search methods in `searched` (per-problem values)."""
    rows = {name: with_interval(values) for name, values in rightness(pools, aggregation).items()}
    if pools and all(pool.truth is not None for pool in pools):
        for name, values in _by_selector(pools, aggregation, lambda pool: pool.every_step).items():
            rows[name]["fully_right"] = _mean(values)
    return rows | {name: with_interval(values) for name, values in searched.items()}


def rightness(pools: Sequence[Pool], aggregation: Aggregation) -> dict[str, list[float]]:
    """Expected accuracy of each selector's choice, per problem."""
    return _by_selector(pools, aggregation, lambda pool: pool.values)


def _by_selector(
    pools: Sequence[Pool], aggregation: Aggregation, values: Callable[[Pool], list[float]]
) -> dict[str, list[float]]:
    """Expected value of each selector's choice and of the oracle's, per problem."""
    if not pools:
        return {}
    choosers = known_selectors(pools, aggregation)
    of_pools = [values(pool) for pool in pools]
    found = {
        name: [worth(chooser(pool.candidates), of) for pool, of in zip(pools, of_pools, strict=True)]
        for name, chooser in choosers.items()
    }
    return {**found, "oracle": [max(of, default=0.0) for of in of_pools]}


def differences(pools: Sequence[Pool], aggregation: Aggregation) -> dict[str, Any]:
    """Paired differences between selectors, with intervals; share of the random-to-oracle gap that best-of-N closes."""
    best = f"prm_{aggregation}"
    values = {name: np.array(right) for name, right in rightness(pools, aggregation).items()}
    room = float((values["oracle"] - values["random"]).mean())
    return {
        f"{best} - random": with_interval(values[best] - values["random"]),
        f"{best} - majority": with_interval(values[best] - values["majority"]),
        "weighted_majority - majority": with_interval(values["weighted_majority"] - values["majority"]),
        "share_of_room_closed": float((values[best] - values["random"]).mean()) / room if room else 0.0,
    }


def mean_curve(pools: Sequence[Pool], aggregation: Aggregation) -> dict[str, float]:
    """Mean best-of-n curve over pools, for each n that all pools have."""
    curves = [curve(pool, aggregation) for pool in pools]
    shared = set.intersection(*(set(of_pool) for of_pool in curves))
    return {str(n): _mean([of_pool[n] for of_pool in curves]) for n in sorted(shared)}


def by_question_type(pools: Sequence[Pool], aggregation: Aggregation) -> dict[str, Any]:
    """Per question type: problems, share of problems with right and wrong answers, accuracy of each selector."""
    groups: dict[str, list[Pool]] = defaultdict(list)
    for pool in pools:
        groups[pool.question_type].append(pool)
    return {
        name: {
            "problems": len(group),
            "mixed": _mean([float(pool.is_mixed) for pool in group]),
            **{k: _mean(right) for k, right in rightness(group, aggregation).items()},
        }
        for name, group in sorted(groups.items())
    }


def with_interval(values: Any) -> dict[str, Any]:
    """The mean of per-problem values with its 95% bootstrap interval."""
    return {"accuracy": float(np.mean(values)), "ci": list(bootstrap_interval(values))}


# --- step rewards


def steps(pools: Sequence[Pool], aggregation: Aggregation) -> dict[str, Any]:
    """Step rewards against the ground truth. Steps that do not parse or have no score are counted and left out. The
    pools must have a ground truth."""
    pairs = step_pairs(pools)
    known = [(score, truth) for score, truth in pairs if score is not None and truth is not None]
    rewards = np.array([score.correct for score, _ in known])
    correct = np.array([truth.correct for _, truth in known])
    sees = [s.correct < THRESHOLD and (s.perception or 0.0) >= (s.reasoning or 0.0) for s, _ in known]
    f1_correct, f1_error = class_f1s(rewards >= THRESHOLD, correct)
    within = [value for pool in pools if (value := _within(pool, aggregation)) is not None]
    return {
        "steps": len(known),
        "unparsed": sum(truth is None for _, truth in pairs),
        "unscored": sum(score is None for score, _ in pairs),
        "share_correct": float(correct.mean()),
        "auroc": auroc(rewards, correct),
        "within_problem_outcome_accuracy": _mean(within),
        "mixed_problems": len(within),
        "f1_correct": f1_correct,
        "f1_error": f1_error,
        "macro_f1": (f1_correct + f1_error) / 2,
        "first_error_accuracy": _mean([float(f) for pool in pools for f in _first_errors_found(pool)]),
        "perception_error_f1": precision_recall_f1(sees, [t.error_kind in PERCEPTUAL for _, t in known])[2],
    }


def _within(pool: Pool, aggregation: Aggregation) -> float | None:
    """How often a right candidate has a higher reward than a wrong one; None without both kinds."""
    ranked = [(c, right) for c, right in zip(pool.candidates, pool.right, strict=True) if right is not None]
    ranked = [(c, right) for c, right in ranked if c.rewards]
    if len({right for _, right in ranked}) < 2:
        return None
    rewards = [reward for reward in solution_rewards([c for c, _ in ranked], aggregation) if reward is not None]
    return auroc(rewards, [right for _, right in ranked])


def _first_errors_found(pool: Pool) -> list[bool]:
    """For each candidate with a known first error (or known to have none): whether the rewards find the same one
    (ProcessBench's rule)."""
    found = []
    for candidate, truth in zip(pool.candidates, pool.truth or (), strict=True):
        first = _first_wrong(truth)
        if truth and candidate.rewards is not None and (first == -1 or truth[first] is not None):
            found.append(first == next((i for i, reward in enumerate(candidate.rewards) if reward < THRESHOLD), -1))
    return found


def _first_wrong(truth: Sequence[Verdict | None]) -> int:
    """Index of the first step that is wrong or does not parse; -1 if there is none."""
    return next((i for i, verdict in enumerate(truth) if verdict is None or not verdict.correct), -1)


# --- labels


def label_quality(trees: Iterable[Sequence[LabelledPath]], tasks: Tasks) -> dict[str, Any]:
    """Precision, recall and F1 of detecting wrong steps, up to and including a solution's first true error.

    All three label sources are measured on the same steps: steps that one of them has no label for are left out, and so
    is the last step, whose label is that of the answer. `labelled`: share of steps with a label.
    """
    verdicts = [pair for tree in trees for pair in labels_and_truth(tree, tasks).values()]
    rules: dict[str, Callable[[StepLabel], bool | None]] = {
        "mc": _mc_wrong,
        "judge": _judge_wrong,
        "fused": _fused_wrong,
    }
    calls = {name: [rule(label) for label, _ in verdicts] for name, rule in rules.items()}
    shared = [i for i in range(len(verdicts)) if all(calls[name][i] is not None for name in rules)]
    actual = [not verdicts[i][1].correct for i in shared]
    result: dict[str, Any] = {}
    for name, called in calls.items():
        precision, recall, f1 = precision_recall_f1([bool(called[i]) for i in shared], actual)
        labelled = sum(c is not None for c in called) / max(len(called), 1)
        result[name] = {"precision": precision, "recall": recall, "f1": f1, "labelled": labelled}
    return {**result, "steps": len(shared)}


def _mc_wrong(label: StepLabel) -> bool | None:
    """Math-Shepherd's hard estimate, from all rollouts from the step or through it: wrong if none is right."""
    value = seen_value(label)
    return None if value is None else value == 0


def _judge_wrong(label: StepLabel) -> bool | None:
    return next((not vote.correct for vote in label.votes.values()), None)


def _fused_wrong(label: StepLabel) -> bool | None:
    return None if label.target is None else rule_calls_wrong(label.rule, label.target)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
