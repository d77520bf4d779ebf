"""Fuse the counts of search trees and the verdicts of sources into step labels: the dataset that `train.prm` reads.

python -m data_synth.label --config configs/demo/label.yaml
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from data_synth.annotations.journal import StepLabels
from data_synth.labels.config import LabelConfig
from data_synth.labels.sources import Judgements, gold_labels
from data_synth.search.store import Searched, TreeRun
from data_synth.search.tree import is_mixed, outcomes
from vlprm.data.dataset import tree_row, write_dataset
from vlprm.errors import UserError
from vlprm.labels.fusion import Rule, fuse_tree, with_votes
from vlprm.labels.judge_reliability import TreeEvidence, estimate_reliability
from vlprm.labels.sources import Reliability, rate_text
from vlprm.runs.config import dump, run
from vlprm.runs.folder import open_run, timed
from vlprm.runs.progress import tracked
from vlprm.schema import StepLabel, StepTree, TreeNode
from vlprm.tasks import Tasks, known_regions, load_tasks

log = logging.getLogger(__name__)

# How the policy fared on a problem.
MIXED, ALWAYS, NEVER, NO_RESULT = "mixed", "always solved", "never solved", "without a result"
ESTIMATED_FROM = 400  # trees; with more, the estimate is finer than the rates are constant


def main(config: LabelConfig) -> None:
    """Run `vlprm label`."""
    tasks = load_tasks(config.tasks)
    trees = TreeRun(config.trees)
    problems = set(trees.ids)
    judgements = Judgements(config.judgements, trees.files, problems)
    gold = gold_labels(config.gold, problems)
    target = config.run / "dataset.parquet"
    open_run(config.run, dump(config), 0, [*trees.files, *judgements.files, *([config.gold] if config.gold else [])])
    if target.exists():
        log.info("%s already exists", target)
        return
    with timed(config.run, "label"):
        quality = _estimate(trees, judgements, gold)
        left_out: Counter[str] = Counter()
        judged = _judged(tracked(trees, "trees", len(trees)), judgements, config.keep_unmixed, left_out)
        rows = (_row(searched, quality, config.rule, judgements, tasks) for searched in judged)
        first = next(rows, None)
        if first is None:
            raise UserError(_none_left(left_out, len(trees)))
        written = write_dataset(target, chain([first], rows))
    log.info("%d trees in %s", written, target)
    if left_out:
        log.warning("%d trees left out: %s%s", left_out.total(), _said(left_out), _hint(left_out))


def _judged(
    trees: Iterable[Searched], judgements: Judgements, keep_unmixed: bool, left_out: Counter[str]
) -> Iterator[Searched]:
    """The trees with the sources' votes. Counts those that are left out: without a result and, unless `keep_unmixed`,
    of problems that the policy solved always or never."""
    for searched in trees:
        outcome = _outcome(searched.tree)
        if outcome == MIXED or (keep_unmixed and outcome != NO_RESULT):
            yield _with_votes(searched, judgements)
        else:
            left_out[outcome] += 1


def _with_votes(searched: Searched, judgements: Judgements) -> Searched:
    labels = with_votes([node.label for node in searched.tree.nodes], judgements.of(searched.tree))
    return dataclasses.replace(searched, tree=_with_labels(searched.tree, labels))


def _outcome(tree: StepTree) -> str:
    if is_mixed(tree):
        return MIXED
    if not tree.root.mc_valid:
        return NO_RESULT
    return ALWAYS if tree.root.mc_correct else NEVER


def _said(left_out: Counter[str]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in left_out.items())


def _hint(left_out: Counter[str]) -> str:
    return "; keep_unmixed: true labels problems solved always or never" if {ALWAYS, NEVER} & left_out.keys() else ""


def _none_left(left_out: Counter[str], trees: int) -> str:
    return (
        f"none of {trees} trees has right and wrong rollouts ({_said(left_out)}), so no step can be labelled; use more "
        "problems, more rollouts or another policy, or set keep_unmixed to label problems solved always or never"
    )


def _estimate(trees: TreeRun, judgements: Judgements, gold: StepLabels) -> Reliability:
    """Estimate the sources' error rates from about ESTIMATED_FROM mixed trees, evenly spaced over the run, and from all
    trees with gold labels."""
    nth = max(1, len(trees) // ESTIMATED_FROM)
    drawn = (s for n, s in enumerate(trees) if n % nth == 0 or gold.of(s.tree)) if gold else trees.every(nth)
    evidence = [
        dataclasses.replace(TreeEvidence.of(_with_votes(searched, judgements).tree), gold=gold.of(searched.tree))
        for searched in drawn
        if is_mixed(searched.tree) or gold.of(searched.tree)
    ]
    quality = judgements.described(
        estimate_reliability(evidence, judgements.rates, local=judgements.local) if evidence else Reliability()
    )
    for name, source in quality.sources.items():
        for rate in source.rates:
            log.info("%s, %s: %s", name, rate, rate_text(source, rate))
    return quality


def _row(searched: Searched, quality: Reliability, rule: Rule, judgements: Judgements, tasks: Tasks) -> dict[str, Any]:
    problem, tree = searched.problem, searched.tree
    right = outcomes(problem, tree)
    paths = [(tree.path(leaf), outcome) for (leaf, _), outcome in zip(tree.leaves, right, strict=True)]
    fused = fuse_tree(TreeEvidence.of(tree), paths, rule, quality)
    meta = {
        "rule": rule,
        "reliability": dataclasses.asdict(quality),
        "solutions": judgements.solutions(problem, tree),
    }
    return tree_row(problem, _with_labels(tree, fused), right, meta, known_regions(problem, tasks))


def _with_labels(tree: StepTree, labels: list[StepLabel]) -> StepTree:
    nodes = tuple(TreeNode(node.step, node.parent, label) for node, label in zip(tree.nodes, labels, strict=True))
    return dataclasses.replace(tree, nodes=nodes)


if __name__ == "__main__":
    run(main, LabelConfig)
