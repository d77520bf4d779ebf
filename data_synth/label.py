"""Fuse the counts of search trees and a judge's verdicts into step labels: the dataset that `train.prm` reads.

python -m data_synth.label --config configs/demo/label.yaml
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from data_synth.judges.config import JUDGEMENTS
from data_synth.judges.store import SUMMARY
from data_synth.labels.config import LabelConfig
from data_synth.search.store import Searched, TreeRun
from data_synth.search.tree import is_mixed, outcomes, read_solutions
from vlprm.data.dataset import tree_row, write_dataset
from vlprm.errors import UserError
from vlprm.labels.fusion import Rule, fuse_tree, with_verdicts
from vlprm.labels.judge_reliability import JudgeReliability, TreeEvidence, estimate_reliability
from vlprm.runs.config import dump, run
from vlprm.runs.folder import open_run, refuse_other_inputs, timed
from vlprm.runs.index import entries
from vlprm.runs.journal import record_at, refuse_unfinished
from vlprm.runs.progress import tracked
from vlprm.schema import Problem, StepLabel, StepTree, TreeNode, Verdict, structured
from vlprm.tasks import known_regions

log = logging.getLogger(__name__)

# How the policy fared on a problem.
MIXED, ALWAYS, NEVER, NO_RESULT = "mixed", "always solved", "never solved", "without a result"
ESTIMATED_FROM = 400  # trees; with more, the estimate is finer than the rates are constant


def main(config: LabelConfig) -> None:
    """Run `vlprm label`."""
    trees = TreeRun(config.trees)
    judgements = Judgements(config.judgements, trees.files)
    target = config.run / "dataset.parquet"
    open_run(config.run, dump(config), 0, [*trees.files, *judgements.files])
    if target.exists():
        log.info("%s already exists", target)
        return
    with timed(config.run, "label"):
        quality = _estimate(trees, judgements)
        left_out: Counter[str] = Counter()
        judged = _judged(tracked(trees, "trees", len(trees)), judgements, config.keep_unmixed, left_out)
        rows = (_row(searched, quality, config.rule, judgements) for searched in judged)
        first = next(rows, None)
        if first is None:
            raise UserError(_none_left(left_out, len(trees)))
        written = write_dataset(target, chain([first], rows))
    log.info("%d trees in %s", written, target)
    if left_out:
        log.warning("%d trees left out: %s%s", left_out.total(), _said(left_out), _hint(left_out))


class Judgements:
    """Verdicts of a finished run of data_synth.judge, read one tree at a time; none if `folder` is None. UserError if
    the run is not finished or judged other trees."""

    def __init__(self, folder: Path | None, trees: list[Path]) -> None:
        self.files = [] if folder is None else [folder / JUDGEMENTS]
        self.judge = "none"
        self._places: dict[str, int] = {}
        for path in self.files:
            refuse_unfinished(path, "data_synth.judge")
            refuse_other_inputs(path.parent, trees)
            for entry in entries(path, SUMMARY):
                self._places[entry.key], self.judge = entry.place, entry.note["judge"]

    def of(self, tree: StepTree) -> list[Verdict | None]:
        """The verdict on each node of a tree, or None."""
        record = self._record(tree.problem_id)
        if record is None:
            return [None] * len(tree.nodes)
        said = record["verdicts"]
        return [None if v is None else structured(Verdict, v, f"a verdict on {tree.problem_id}") for v in said]

    def solutions(self, problem: Problem, tree: StepTree) -> list[int]:
        """Leaves of the judged solutions, in order; without a record, of those that a judge would read."""
        read = (self._record(tree.problem_id) or {}).get("solutions")
        return read_solutions(problem, tree) if read is None else list(read)

    def _record(self, problem_id: str) -> dict[str, Any] | None:
        return record_at(self.files[0], self._places[problem_id]) if problem_id in self._places else None


def _judged(
    trees: Iterable[Searched], judgements: Judgements, keep_unmixed: bool, left_out: Counter[str]
) -> Iterator[Searched]:
    """The trees with the judge's verdicts. Counts those that are left out: without a result and, unless `keep_unmixed`,
    of problems that the policy solved always or never."""
    for searched in trees:
        outcome = _outcome(searched.tree)
        if outcome == MIXED or (keep_unmixed and outcome != NO_RESULT):
            labels = with_verdicts([node.label for node in searched.tree.nodes], judgements.of(searched.tree))
            yield dataclasses.replace(searched, tree=_with_labels(searched.tree, labels))
        else:
            left_out[outcome] += 1


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


def _estimate(trees: TreeRun, judgements: Judgements) -> JudgeReliability:
    """Estimate the judge's error rates from about ESTIMATED_FROM mixed trees, evenly spaced over the run."""
    drawn = trees.every(max(1, len(trees) // ESTIMATED_FROM))
    evidence = [TreeEvidence.of(searched.tree) for searched in _judged(drawn, judgements, False, Counter())]
    quality = estimate_reliability(evidence) if evidence else JudgeReliability()
    for name, rate in quality.rates.items():
        low, high = quality.intervals.get(name, (math.nan, math.nan))
        log.info("the judge's %s: %.3f (%.3f to %.3f)", name, rate, low, high)
    return quality


def _row(searched: Searched, quality: JudgeReliability, rule: Rule, judgements: Judgements) -> dict[str, Any]:
    problem, tree = searched.problem, searched.tree
    right = outcomes(problem, tree)
    paths = [(tree.path(leaf), outcome) for (leaf, _), outcome in zip(tree.leaves, right, strict=True)]
    fused = fuse_tree(TreeEvidence.of(tree), paths, rule, quality)
    meta = {
        "rule": rule,
        "judge": judgements.judge,
        "judge_quality": dataclasses.asdict(quality),
        "solutions": judgements.solutions(problem, tree),
    }
    return tree_row(problem, _with_labels(tree, fused), right, meta, known_regions(problem))


def _with_labels(tree: StepTree, labels: list[StepLabel]) -> StepTree:
    nodes = tuple(TreeNode(node.step, node.parent, label) for node, label in zip(tree.nodes, labels, strict=True))
    return dataclasses.replace(tree, nodes=nodes)


if __name__ == "__main__":
    run(main, LabelConfig)
