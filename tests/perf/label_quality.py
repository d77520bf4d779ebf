"""Accuracy of the labels of each fusion rule against the ground truth, with judges of several accuracies.

    python -m tests.perf.label_quality

The trees are the built-in policy's, on validation problems (kept in runs/bench/label_quality, so that a second run is
fast). The judge is the oracle with errors of two styles: independent for each prefix, or sticky: the same for all
steps of a problem with the same text, like a model's. F1 is that of *wrong* steps, over the steps up to and including
a path's first true error that have a verdict and three rollouts with a result. A step that a rule leaves without a
label counts as not called wrong; `f1_labelled` leaves such steps out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data_synth import trees
from data_synth.judges.oracle import noisy, oracle_judge
from data_synth.search.store import Searched, TreeRun
from data_synth.search.tree import is_mixed
from tests.perf.results import FOLDER, Effect, write_result
from vlprm.answers import is_correct
from vlprm.labels.fusion import (
    RULES,
    fuse_tree,
    mc_rule,
    mined_corrections,
    rule_calls_wrong,
    seen_value,
    with_votes,
)
from vlprm.labels.judge_reliability import TreeEvidence, estimate_reliability
from vlprm.labels.sources import Reliability
from vlprm.schema import Problem, Step, Verdict
from vlprm.serving.config import ModelConfig
from vlprm.tasks import TASKS
from vlprm.tasks.scene import rng_for

PROBLEMS, SEEDS, ACCURACIES = 600, 5, (0.8, 0.9, 0.95)
CONFIDENT = 0.125, 0.75  # VRPRM's Monte Carlo values of surely wrong and surely right steps
RUN = FOLDER / "label_quality" / "trees"
ALL, LABELLED = [0, 1, 2], [0, 1, 4]  # columns of calls_of: all wrong steps that are missed, or the labelled ones
Sayings = Callable[[Problem, Sequence[Step], float, int], list[Verdict | None]]


@dataclass(frozen=True)
class Tree:
    """A tree, the truth of its steps, and which of them are measured."""

    searched: Searched
    truth: Sequence[Verdict | None]
    measured: Sequence[int]

    @property
    def paths(self) -> Iterator[list[int]]:
        return (self.searched.tree.path(leaf) for leaf, _ in self.searched.tree.leaves)


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    if not (RUN / "done.json").exists():
        trees.main(
            trees.TreesConfig(
                RUN, ModelConfig("builtin/policy", device="cpu"), split="validation", problems=PROBLEMS, seed=21
            )
        )
    known = [with_truth(searched) for searched in TreeRun(RUN) if is_mixed(searched.tree)]
    styles: dict[str, Sayings] = {"independent": independent, "sticky": sticky}
    rows = [
        row
        for style, says in styles.items()
        for accuracy in ACCURACIES
        for row in measured(known, style, says, accuracy)
    ]
    gains = [row["f1"] - row["best_single_f1"] for row in rows if row["rule"] == "bayes"]
    write_result("label_quality", rows, {"fused_minus_best_single_f1": (min(gains), 0.0)}, effects(rows, len(known)))


def effects(rows: Sequence[dict[str, Any]], problems: int) -> dict[str, Effect]:
    """What the claims compare, with a judge of 90% whose errors are sticky."""
    of = {row["rule"]: row for row in rows if (row["judge"], row["accuracy"]) == ("sticky", 0.9)}
    pairs = {
        "fused less counts": ("bayes", "mc", "f1", "minus_mc"),
        "fused less judge": ("bayes", "judge", "f1", "minus_judge"),
        "consensus less judge": ("consensus", "judge", "f1_labelled", "minus_judge_labelled"),
    }
    return {
        name: Effect(of[one][key] - of[other][key], *of[one][interval], "F1", problems, SEEDS)
        for name, (one, other, key, interval) in pairs.items()
    }


def independent(problem: Problem, steps: Sequence[Step], error_rate: float, seed: int) -> list[Verdict | None]:
    return oracle_judge(TASKS[problem.task], problem, steps, error_rate, seed)


def sticky(problem: Problem, steps: Sequence[Step], error_rate: float, seed: int) -> list[Verdict | None]:
    truth = TASKS[problem.task].verdicts(problem, steps)
    return [
        noisy(verdict, rng_for("sticky", seed, problem.id, step.text), error_rate)
        for step, verdict in zip(steps, truth, strict=True)
    ]


def measured(known: Sequence[Tree], style: str, says: Sayings, accuracy: float) -> list[dict[str, Any]]:
    """One row per rule: F1 with its interval over seeds and problems."""
    calls: dict[str, list[np.ndarray]] = {rule: [] for rule in RULES}  # (trees, 5), see calls_of
    judged: list[dict[str, float]] = []
    for seed in range(SEEDS):
        evidence = [_evidence(tree, says, 1 - accuracy, seed) for tree in known]
        quality = estimate_reliability(evidence, seed=seed)
        estimated = {f"estimated {name}": rate for name, rate in quality.sources["judge"].rates.items()}
        judged.append({**estimated, **_true_rates(known, evidence), **_mined(known, evidence, quality)})
        for rule in RULES:
            calls[rule].append(
                np.array([calls_of(t, RULES[rule](e, quality), rule) for t, e in zip(known, evidence, strict=True)])
            )
    sums = {rule: np.mean(each, axis=0).sum(axis=0) for rule, each in calls.items()}
    f1 = {rule: f1_of(counts) for rule, counts in sums.items()}
    best = max(f1["mc"], f1["judge"])
    steps = sum(len(tree.measured) for tree in known)
    rates = {name: float(np.nanmean([j[name] for j in judged])) for name in judged[0]}
    print(f"{style}, {accuracy}: " + ", ".join(f"{rule} {value:.3f}" for rule, value in f1.items()), flush=True)
    return [
        {
            "judge": style, "accuracy": accuracy, "rule": rule, "f1": f1[rule], "interval": f1_interval(calls[rule]),
            "minus_judge": f1_interval(calls[rule], calls["judge"]), "minus_mc": f1_interval(calls[rule], calls["mc"]),
            "minus_judge_labelled": f1_interval(calls[rule], calls["judge"], LABELLED),
            "best_single_f1": best, "steps": steps,
            "labelled": sums[rule][3] / steps, "f1_labelled": f1_of(sums[rule][LABELLED]),
            **(rates if rule == "bayes" else confident(known) if rule == "mc" else {}),
        }
        for rule in RULES
    ]  # fmt: skip


def with_truth(searched: Searched) -> Tree:
    tree, truth, measured = searched.tree, [None] * len(searched.tree.nodes), set()
    for leaf, _ in tree.leaves:
        path = tree.path(leaf)
        verdicts = TASKS[searched.problem.task].verdicts(searched.problem, [tree.nodes[n].step for n in path])
        for node, verdict in zip(path, verdicts, strict=True):
            truth[node] = verdict  # type: ignore[call-overload]
        for node, verdict in zip(path[:-1], verdicts, strict=False):
            if verdict is not None and seen_value(tree.nodes[node].label) is not None:
                measured.add(node)
            if verdict is None or not verdict.correct:
                break
    return Tree(searched, truth, sorted(measured))


def _evidence(tree: Tree, says: Sayings, error_rate: float, seed: int) -> TreeEvidence:
    verdicts: list[Verdict | None] = [None] * len(tree.truth)
    nodes = tree.searched.tree.nodes
    for path in tree.paths:
        steps = [nodes[n].step for n in path]
        for node, verdict in zip(path, says(tree.searched.problem, steps, error_rate, seed), strict=True):
            verdicts[node] = verdict
    evidence = TreeEvidence.of(tree.searched.tree)
    return replace(evidence, labels=with_votes(evidence.labels, {"judge": verdicts}))


def _true_rates(known: Sequence[Tree], evidence: Sequence[TreeEvidence]) -> dict[str, float]:
    said: dict[str, list[bool]] = {"specificity": [], "sensitivity/perception": [], "sensitivity/reasoning": []}
    for tree, seen in zip(known, evidence, strict=True):
        for node in tree.measured:
            truth, verdict = tree.truth[node], seen.labels[node].votes.get("judge")
            name = "specificity" if truth and truth.correct else f"sensitivity/{truth.error_kind if truth else None}"
            if verdict and name in said:
                said[name].append(verdict.correct == (name == "specificity"))
    return {f"true {name}": float(np.mean(hits)) if hits else float("nan") for name, hits in said.items()}


def _mined(known: Sequence[Tree], evidence: Sequence[TreeEvidence], quality: Reliability) -> dict[str, float]:
    """How many corrections are mined from siblings, and the share of them that are right."""
    right: list[bool] = []
    for tree, seen in zip(known, evidence, strict=True):
        problem = tree.searched.problem
        outcomes = [is_correct(a, str(problem.answer), problem.answer_type) for _, a in tree.searched.tree.leaves]
        labels = fuse_tree(seen, list(zip(tree.paths, outcomes, strict=True)), "bayes", quality)
        mined = {node for node in mined_corrections(labels, seen.parents) if node is not None}
        right += [verdict.correct for node in mined if (verdict := tree.truth[node])]
    return {"corrections": len(right), "corrections right": float(np.mean(right))}


def calls_of(tree: Tree, targets: Sequence[float | None], rule: str) -> tuple[int, int, int, int, int]:
    """Counts: wrong steps called wrong; right steps called wrong; wrong steps not called wrong; steps with a label;
    wrong steps with a label not called wrong."""
    tp = fp = fn = labelled = missed = 0
    for node in tree.measured:
        target, truth = targets[node], tree.truth[node]
        called, wrong = target is not None and rule_calls_wrong(rule, target), not (truth and truth.correct)
        tp, fp, fn = tp + (called and wrong), fp + (called and not wrong), fn + (wrong and not called)
        labelled += target is not None
        missed += target is not None and wrong and not called
    return tp, fp, fn, labelled, missed


def confident(known: Sequence[Tree]) -> dict[str, float]:
    """F1 of the Monte Carlo values outside the band CONFIDENT, called wrong below it, and their share of the steps."""
    low, high = CONFIDENT
    calls, kept, steps = np.zeros(3), 0, 0
    for tree in known:
        for node in tree.measured:
            value, truth = mc_rule(tree.searched.tree.nodes[node].label), tree.truth[node]
            steps += 1
            if value is not None and not low < value < high:
                kept += 1
                called, wrong = value <= low, not (truth and truth.correct)
                calls += (called and wrong, called and not wrong, wrong and not called)
    return {"f1_confident": f1_of(calls), "confident": kept / steps}


def f1_of(sums: np.ndarray) -> float:
    return float(2 * sums[0] / max(1e-9, 2 * sums[0] + sums[1] + sums[2]))


def f1_interval(
    each: Sequence[np.ndarray], less: Sequence[np.ndarray] | None = None, counts: list[int] = ALL
) -> tuple[float, float]:
    """95% interval of F1, or of its difference to another rule's, over seeds and bootstrapped problems. `counts` are
    the columns of the calls that F1 is computed from."""
    rng, values = np.random.default_rng(0), []
    for _ in range(1000):
        seed = rng.integers(len(each))
        drawn = rng.integers(len(each[0]), size=len(each[0]))
        value = f1_of(each[seed][drawn].sum(axis=0)[counts])
        values.append(value - f1_of(less[seed][drawn].sum(axis=0)[counts]) if less else value)
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    main()
