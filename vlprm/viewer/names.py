"""The names of selectors, search methods, measures and stages.

Pages, `eval.report` and `eval.table` take them from here, so that a row has one name in all.
"""

from __future__ import annotations

from typing import get_args

from vlprm.schema import Aggregation

SELECTORS = {
    "random": "random candidate",
    "majority": "majority vote",
    "weighted_majority": "vote weighted by the reward model",
    "whole_solution": "best of N, whole solution as one step",
    "likeliest": "best of N by likelihood under the backbone",
    "oracle": "oracle",
    "best_of_n": "best of N",
    "pass_at_1": "first sample",
    "self_consistency": "majority vote",
    "adaptive": "adaptive majority vote",
    "adaptive_best_of_n": "adaptive best of N",
    "greedy": "greedy step search",
    "step_beam": "step beam search",
    "duplicating_beam": "beam search that duplicates beams",
    "dvts": "DVTS",
    "rebase": "REBASE",
    "cut_and_regenerate": "cut and regenerate",
    "refined_best_of_n": "Refined Best-of-N",
}

METHOD_NAMES = SELECTORS | {
    f"{selector}_{rule}": f"{name}: {rule.replace('_', ' ')}"
    for selector, name in (
        ("prm", "best of N by step rewards"),
        ("weighted_majority", SELECTORS["weighted_majority"]),
    )
    for rule in get_args(Aggregation)
}

# What a name does not say by itself.
NOTES = {
    "random": "mean of the pool",
    "likeliest": "no training",
    "oracle": "a right candidate, if the pool has one",
}

MEASURES = {
    "steps": "steps measured",
    "unparsed": "steps that cannot be read, left out",
    "unscored": "steps without a reward, left out",
    "share_correct": "share of right steps",
    "auroc": "AUROC",
    "within_problem_outcome_accuracy": "right above wrong answers of a problem",
    "mixed_problems": "problems with right and wrong candidates",
    "f1_correct": "F1 of right steps",
    "f1_error": "F1 of wrong steps",
    "macro_f1": "macro F1",
    "first_error_accuracy": "first error found",
    "perception_error_f1": "F1 of perception errors",
}

HELD_OUT = {
    "eval_loss": "loss",
    "eval_step_auroc": "AUROC of steps",
    "eval_step_accuracy": "accuracy of steps",
    "eval_step_ece": "calibration error",
    "eval_step_brier": "Brier score",
    "eval_found_perception": "perception errors found",
    "eval_found_reasoning": "reasoning errors found",
    "eval_value_brier": "Brier score of the value",
}

ROUND_MEASURES = {
    "right": "right answers or verdicts",
    "all_steps_right": "right with every step right",
    "validation_right": "right in validation",
    "validation_all_steps_right": "there, with every step right",
    "right_steps_passed": "right steps that critiques pass",
    "wrong_steps_found": "wrong steps that critiques find",
    "reward": "mean reward of a solution or critique",
    "prm_score": "mean score of the reward model",
    "prm_less_truth": "its score less the truth",
    "prm_auroc": "AUROC against the truth of steps",
    "prm_outcome_auroc": "AUROC of the least score against the outcome",
    "length": "tokens of a solution",
    "steps": "steps of a solution",
    "zooms": "zooms of a solution",
    "entropy": "entropy of a token, nats",
    "learn_kl": "divergence from the first policy, nats a token",
    "learn_grad_norm": "norm of the gradient",
}

# Curves of a page, each with its title and up to three measures.
ROUND_CHARTS = {
    "truth": ("Right answers or verdicts", ("validation_right", "right", "validation_all_steps_right")),
    "verdicts": ("Verdicts", ("wrong_steps_found", "right_steps_passed")),
    "reward": ("Reward", ("reward",)),
    "gap": ("The reward model and the truth", ("prm_less_truth", "prm_auroc", "prm_outcome_auroc")),
    "length": ("Length", ("length",)),
    "texts": ("Steps and zooms", ("steps", "zooms")),
    "policy": ("The policy's change", ("entropy", "learn_kl")),
}

STAGES = {
    "trees": "search trees",
    "judge": "judge",
    "label": "labels",
    "train": "training",
    "grpo": "policy learning",
    "run": "evaluation",
    "report": "report",
}

CAUSES = {
    "bad_json": "a zoom call is not valid JSON",
    "wrong_arity": "a zoom does not have four numbers",
    "inverted": "a zoom's corners are in the wrong order",
    "length": "stopped at the token limit",
    "no_answer": "no final answer",
    "max_steps": "stopped at the limit of steps",
    "bad_field": "a field is missing or has the wrong type",
}

LABELS = {"mc": "Monte Carlo counts", "judge": "judge", "fused": "the two fused"}


def selector_name(name: str) -> str:
    """The name of a selector or search method; a method from outside the package keeps its own, a module or a path."""
    return METHOD_NAMES.get(name) or (name if "." in name else words(name))


def selector_note(name: str, aggregation: str) -> str:
    """What the name of a selector does not say; empty for most."""
    return "fixed in advance" if name == f"prm_{aggregation}" else NOTES.get(name, "")


def selector_title(name: str, aggregation: str) -> str:
    """The name of a selector with its note in brackets."""
    note = selector_note(name, aggregation)
    return f"{selector_name(name)} ({note})" if note else selector_name(name)


def difference_name(name: str) -> str:
    """The name of a paired difference, such as `prm_min - random`."""
    return " \N{MINUS SIGN} ".join(map(selector_name, name.split(" - ")))


def cause(name: str) -> str:
    """Why a result is missing."""
    return CAUSES.get(name, words(name))


def words(name: str) -> str:
    """A key as words: `count_grid/both` is `count grid: both`."""
    return name.replace("_", " ").replace("/", ": ")
