"""Search trees -> judged, fused step labels -> the dataset that `train.prm` reads.

    python -m data_synth.label --config configs/demo/label.yaml

The judge here is the tasks' own oracle with a declared, seeded error rate, standing in for a strong VLM.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse.typing import ClosedUnitInterval

from data_synth.judge import oracle_judge
from data_synth.omega import is_mixed
from vlprm.answers import is_correct
from vlprm.config import dump, run
from vlprm.dataset import tree_row, write_dataset
from vlprm.fusion import JudgeQuality, Rule, estimate_quality, fuse_tree, with_verdicts
from vlprm.records import finished_records, open_run, timed
from vlprm.schema import Problem, StepLabel, StepTree, TreeNode, from_json
from vlprm.tasks import TASKS, Tasks, load_tasks, problem_by_id, refuse_other_tasks, task_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelConfig:
    """Judge and fuse.

    Args:
        trees: the run folder of data_synth.trees.
        run: folder to write `dataset.parquet` into.
        tasks: task names or module paths, as they were given to data_synth.trees.
        rule: fusion rule, see vlprm.fusion.RULES.
        judge_error_rate: declared error rate of the oracle that stands in for a judge.
        seed: decides the judge's errors.
    """

    trees: Path
    run: Path
    tasks: tuple[str, ...] = tuple(TASKS)
    rule: Rule = "bayes"
    judge_error_rate: ClosedUnitInterval = 0.1
    seed: int = 0


def main(config: LabelConfig) -> None:
    tasks = load_tasks(config.tasks)
    target, source = config.run / "dataset.parquet", config.trees / "trees.jsonl"
    records = finished_records(source, "data_synth.trees")
    refuse_other_tasks((record["key"] for record in records), tasks)
    open_run(config.run, dump(config), config.seed, [source])
    if target.exists():
        log.info("%s is there", target)
        return
    with timed(config.run, "label"):
        trees = [from_json(StepTree, record["tree"]) for record in records]
        judged = [_judged(tree, tasks, config) for tree in trees if is_mixed(tree)]
        told = [label for _, tree in judged for label in _telling(tree)]
        quality = estimate_quality(told, accuracy=1 - config.judge_error_rate)
        log.info("believed of the steps and the judge: %s", quality)
        write_dataset(target, [_row(problem, tree, quality, config) for problem, tree in judged])
    log.info("%d trees in %s", len(judged), target)


def _judged(tree: StepTree, tasks: Tasks, config: LabelConfig) -> tuple[Problem, StepTree]:
    """Problem and tree with the judge's verdict on every step; a shared prefix is judged once."""
    problem = problem_by_id(tree.problem_id, tasks)
    family = task_of(problem.task, tasks)
    labels = [node.label for node in tree.nodes]
    for leaf, _ in tree.leaves:
        path = tree.path(leaf)
        steps = [tree.nodes[n].step for n in path]
        verdicts = oracle_judge(family, problem, steps, config.judge_error_rate, config.seed)
        for node, label in zip(path, with_verdicts([labels[n] for n in path], verdicts), strict=True):
            labels[node] = label
    return problem, _with_labels(tree, labels)


def _telling(tree: StepTree) -> list[StepLabel]:
    """Labels of the steps that follow a prefix from which the answer was reached: only there do counts of zero speak
    of the step itself."""
    parents = [tree.root if node.parent < 0 else tree.nodes[node.parent].label for node in tree.nodes]
    return [node.label for node, parent in zip(tree.nodes, parents, strict=True) if parent.mc_correct > 0]


def _row(problem: Problem, tree: StepTree, quality: JudgeQuality, config: LabelConfig) -> dict[str, Any]:
    assert problem.answer is not None
    right = [is_correct(answer, problem.answer, problem.answer_type) for _, answer in tree.leaves]
    paths = [(tree.path(leaf), outcome) for (leaf, _), outcome in zip(tree.leaves, right, strict=True)]
    fused = fuse_tree([node.label for node in tree.nodes], paths, config.rule, quality)
    meta = {
        "rule": config.rule,
        "judge": f"oracle with error rate {config.judge_error_rate}",
        "judge_quality": dataclasses.asdict(quality),
    }
    return tree_row(problem, _with_labels(tree, fused), right, meta)


def _with_labels(tree: StepTree, labels: list[StepLabel]) -> StepTree:
    nodes = tuple(TreeNode(node.step, node.parent, label) for node, label in zip(tree.nodes, labels, strict=True))
    return dataclasses.replace(tree, nodes=nodes)


if __name__ == "__main__":
    run(main, LabelConfig)
