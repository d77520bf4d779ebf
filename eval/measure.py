"""What a scored pool and a labelled dataset say, in numbers: selection, best-of-n, steps, labels.

Pure functions from pools to plain dicts, as they stand in `results.json`. A candidate without an answer is a *no
result*, counted here and never right; what selectors do about it stands in `vlprm.search`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from eval.pool import Pool, Scored
from vlprm.dataset import LabelledPath
from vlprm.fusion import is_wrong, mc_rule
from vlprm.metrics import auroc, bootstrap_interval, class_f1s, expected_best_of, precision_recall_f1
from vlprm.schema import Aggregation, StepLabel
from vlprm.search.select import likeliest, ranking, selectors, solution_rewards
from vlprm.tasks import Tasks
from vlprm.truth import labels_and_truth

THRESHOLD = 0.5  # a step with a lower reward is called wrong; fixed, not tuned
SIZES = (1, 2, 4, 8)
PERCEPTUAL = ("perception", "action")


# --- which candidate is chosen


def no_results(pools: Sequence[Pool]) -> dict[str, int]:
    """Candidates without an answer, and problems of which no candidate has one: not solved, whoever chooses."""
    return {
        "candidates": sum(c.right is None for pool in pools for c in pool.candidates),
        "problems": sum(all(c.right is None for c in pool.candidates) for pool in pools),
    }


def selection(pools: Sequence[Pool], aggregation: Aggregation) -> dict[str, Any]:
    """Accuracy of every selector with its 95% interval over problems, and how often its choice has every step right."""
    right, fully = rightness(pools, aggregation), _by_selector(pools, aggregation, _fully_right)
    return {name: {**with_interval(values), "fully_right": _mean(fully[name])} for name, values in right.items()}


def rightness(pools: Sequence[Pool], aggregation: Aggregation) -> dict[str, list[float]]:
    """How often each selector's choice has the right answer, problem by problem."""
    return _by_selector(pools, aggregation, _right)


def _by_selector(
    pools: Sequence[Pool], aggregation: Aggregation, value: Callable[[Scored], float]
) -> dict[str, list[float]]:
    """What each selector's choice is worth, problem by problem; and what that of an oracle is."""
    choosers = selectors(aggregation)
    if any(c.candidate.surprise is not None for pool in pools for c in pool.candidates):
        choosers["likeliest"] = likeliest
    worth = {name: [_expected(pool, chooser, value) for pool in pools] for name, chooser in choosers.items()}
    return {**worth, "oracle": [max(map(value, pool.candidates)) for pool in pools]}


def differences(pools: Sequence[Pool], aggregation: Aggregation) -> dict[str, Any]:
    """Paired differences between selectors, with their intervals, and the share of the room that best-of-N closes."""
    best = f"prm_{aggregation}"
    values = {name: np.array(right) for name, right in rightness(pools, aggregation).items()}
    room = float((values["oracle"] - values["random"]).mean())
    return {
        f"{best} - random": with_interval(values[best] - values["random"]),
        f"{best} - majority": with_interval(values[best] - values["majority"]),
        "weighted_majority - majority": with_interval(values["weighted_majority"] - values["majority"]),
        "share_of_room_closed": float((values[best] - values["random"]).mean()) / room if room else 0.0,
    }


def best_of_n(pools: Sequence[Pool], aggregation: Aggregation) -> dict[str, float]:
    """Exact expected accuracy of the best of n candidates drawn from each pool, by n.

    Drawn from those that may be chosen, and all of them where there are fewer than n: the curve opens at the random
    selector's accuracy and ends at that of `prm_<aggregation>`.
    """
    sizes = [n for n in SIZES if all(n <= len(pool.candidates) for pool in pools)]
    ranked = [_by_reward(pool, aggregation) for pool in pools]
    return {str(n): _mean([expected_best_of(right, min(n, len(right))) for right in ranked]) for n in sizes}


def by_question_type(pools: Sequence[Pool], aggregation: Aggregation) -> dict[str, Any]:
    """For each question type: problems, the share with right and wrong answers, and accuracies by selector."""
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
    return {"accuracy": float(np.mean(values)), "ci": list(bootstrap_interval(values))}


def _expected(pool: Pool, chooser: Callable[[Any], list[float]], value: Callable[[Scored], float]) -> float:
    shares = chooser([c.candidate for c in pool.candidates])
    return sum(share * value(c) for share, c in zip(shares, pool.candidates, strict=True))


def _by_reward(pool: Pool, aggregation: Aggregation) -> list[float]:
    """Correctness of the candidates that may be chosen, best reward first; those of equal reward each have their mean
    correctness."""
    candidates = [c.candidate for c in pool.candidates]
    groups: dict[float, list[float]] = defaultdict(list)
    for i, value in ranking(candidates, solution_rewards(candidates, aggregation)).items():
        groups[value].append(_right(pool.candidates[i]))
    return [_mean(group) for _, group in sorted(groups.items(), reverse=True) for _ in group]


def _right(candidate: Scored) -> float:
    return float(candidate.right is True)


def _fully_right(candidate: Scored) -> float:
    return float(candidate.fully_right)


# --- how right the rewards are, step by step


def steps(pools: Sequence[Pool], aggregation: Aggregation) -> dict[str, Any]:
    """Step rewards against the truth. Steps whose text does not parse, and those without a score, are counted and left
    out."""
    known = [
        (score, truth) for pool in pools for c in pool.candidates
        for score, truth in zip(c.scores, c.truth, strict=True) if score is not None and truth is not None
    ]  # fmt: skip
    rewards = np.array([score.correct for score, _ in known])
    correct = np.array([truth.correct for _, truth in known])
    sees = [s.correct < THRESHOLD and (s.perception or 0.0) >= (s.reasoning or 0.0) for s, _ in known]
    f1_correct, f1_error = class_f1s(rewards >= THRESHOLD, correct)
    within = [value for pool in pools if (value := _within(pool, aggregation)) is not None]
    return {
        "steps": len(known),
        "unparsed": sum(v is None for pool in pools for c in pool.candidates for v in c.truth),
        "unscored": sum(s is None for pool in pools for c in pool.candidates for s in c.scores),
        "share_correct": float(correct.mean()),
        "auroc": auroc(rewards, correct),
        "within_problem_accuracy": _mean(within),
        "mixed_problems": len(within),
        "f1_correct": f1_correct,
        "f1_error": f1_error,
        "macro_f1": (f1_correct + f1_error) / 2,
        "first_error_accuracy": _mean([float(f) for p in pools for c in p.candidates if (f := _found(c)) is not None]),
        "perception_error_f1": precision_recall_f1(sees, [t.error_kind in PERCEPTUAL for _, t in known])[2],
    }


def _within(pool: Pool, aggregation: Aggregation) -> float | None:
    """How often a right candidate of this problem has a larger reward than a wrong one; None if not both exist."""
    candidates = [c for c in pool.candidates if c.right is not None and c.candidate.rewards]
    if len({c.right for c in candidates}) < 2:
        return None
    rewards = solution_rewards([c.candidate for c in candidates], aggregation)
    return auroc(rewards, [c.right for c in candidates])


def _found(candidate: Scored) -> bool | None:
    """Exact match of the first step called wrong, or of there being none (ProcessBench's rule). None where the truth
    does not say which step that is."""
    first = next((i for i, v in enumerate(candidate.truth) if v is None or not v.correct), -1)
    rewards = candidate.candidate.rewards
    if not candidate.truth or candidate.truth[first] is None or rewards is None:
        return None
    return first == next((i for i, reward in enumerate(rewards) if reward < THRESHOLD), -1)


# --- how right the labels are


def label_quality(trees: Sequence[Sequence[LabelledPath]], tasks: Tasks) -> dict[str, Any]:
    """Precision, recall and F1 of *wrong* among the steps before and at a solution's first true error.

    The last step is left out (its label is the answer's), and so is a step on which one of the three has no evidence:
    all are measured on the same steps. `labelled` is the share of the steps that each has a label for.
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
    value = mc_rule(label)
    return None if value is None else is_wrong("mc", value)


def _judge_wrong(label: StepLabel) -> bool | None:
    return None if label.judge is None else not label.judge.correct


def _fused_wrong(label: StepLabel) -> bool | None:
    return None if label.target is None else is_wrong(label.rule, label.target)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
