"""Preference pairs of next steps, and their file: parquet with one row per tree and images embedded as bytes.

id, images, prompt, answer, meta    as in vlprm.data.dataset
completions   text of each step of a pair and of the steps before it
parents       index of each step's parent step, -1 for a first step
pairs         {"better", "worse", "better_value", "worse_value"}: two steps with the same parent, and their values
evidence      JSON, one object per step: `region` (of an executed zoom) and `told` (why a zoom was refused)
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Features, List, Value

from train.policy.config import PairsConfig
from vlprm.data.dataset import (
    FEATURES,
    LabelledPath,
    open_parquet,
    row_problem,
    row_steps,
    table_rows,
    write_parquet,
)
from vlprm.errors import UserError
from vlprm.labels.fusion import judge_rule, mc_rule
from vlprm.schema import Problem, Step, StepLabel, to_json, with_ancestors
from vlprm.steps import untagged

PAIRS_FILE = "pairs.parquet"
KEPT = ("id", "images", "prompt", "completions", "parents", "answer", "evidence", "meta")
PAIR_FEATURES = {
    **{name: FEATURES[name] for name in KEPT},
    "pairs": List(
        {
            "better": Value("int32"),
            "worse": Value("int32"),
            "better_value": Value("float32"),
            "worse_value": Value("float32"),
        }
    ),
}


@dataclass(frozen=True)
class Pair:
    """Two steps of a tree with one parent, and their values."""

    better: int
    worse: int
    better_value: float
    worse_value: float


@dataclass(frozen=True)
class PairTree:
    """The pairs of a problem, and the tree of their steps and of the steps before them."""

    problem: Problem
    steps: tuple[Step, ...]
    parents: tuple[int, ...]
    pairs: tuple[Pair, ...]


# --- selection


@dataclass(frozen=True)
class _Known:
    """A step of a tree, its parent, and its value (None: unknown)."""

    step: Step
    parent: int
    value: float | None


def pairs_of(tree: Sequence[LabelledPath], config: PairsConfig, counts: Counter[str]) -> PairTree | None:
    """The pairs of a tree: at each node, the best next step with each wrong one. None without pairs. Counts the nodes
    with several next steps by what became of them, and the pairs."""
    known = _known_steps(tree, config.by)
    children: dict[int, list[int]] = defaultdict(list)
    for node, of_node in known.items():
        children[of_node.parent].append(node)
    tagged = any(of_node.step.kind != "other" for of_node in known.values())
    pairs = []
    for siblings in children.values():
        if len(siblings) > 1:
            found, outcome = _pairs_among(siblings, known, config, tagged)
            counts[outcome] += 1
            counts["pairs"] += len(found)
            pairs += found
    return _pruned(tree[0].problem, known, pairs) if pairs else None


def _known_steps(tree: Sequence[LabelledPath], by: str) -> dict[int, _Known]:
    known: dict[int, _Known] = {}
    for path in tree:
        for k, (node, step, label) in enumerate(zip(path.nodes, path.steps, path.labels, strict=True)):
            last = k == len(path.nodes) - 1
            if last or node not in known:
                value = _value(label, by, path.right if last else None)
                known[node] = _Known(step, path.nodes[k - 1] if k else -1, value)
    return known


def _value(label: StepLabel, by: str, right: bool | None) -> float | None:
    """A step's value. By value, a solution's last step has the value of its answer."""
    if by == "judge":
        return judge_rule(label)
    if by == "label":
        return label.target
    return mc_rule(label) if right is None else float(right)


def _pairs_among(
    siblings: Sequence[int], known: dict[int, _Known], config: PairsConfig, tagged: bool
) -> tuple[list[Pair], str]:
    """The pairs of a node's next steps, and what became of the node."""
    values = {node: value for node in siblings if (value := known[node].value) is not None}
    if len(values) < 2:
        return [], "nodes_without_two_values"
    worse = [node for node, value in values.items() if value <= config.worse]
    better = [node for node, value in values.items() if value >= config.better and node not in worse]
    if not better or not worse:
        return [], "nodes_without_a_certain_pair"
    well_formed = [node for node in better if is_well_formed(known[node].step, tagged)]
    if not well_formed:
        return [], "nodes_with_a_malformed_better_step"
    best = max(well_formed, key=lambda node: values[node])
    return [Pair(best, node, values[best], values[node]) for node in worse], "nodes_with_pairs"


def is_well_formed(step: Step, tagged: bool) -> bool:
    """Whether a policy should learn to write a step. A tree visits states that a rollout never reaches, where a broken
    step may still end well: in a tree with tags, a step without one; an empty step; a zoom that was not executed."""
    if not untagged(step.text) or (step.kind == "zoom" and step.region is None):
        return False
    return step.kind != "other" or not tagged


def _pruned(problem: Problem, known: dict[int, _Known], pairs: Sequence[Pair]) -> PairTree:
    """The tree of the pairs' steps and those before them."""
    compared = (node for pair in pairs for node in (pair.better, pair.worse))
    used = with_ancestors(compared, {node: of_node.parent for node, of_node in known.items()})
    order = [node for node in known if node in used]  # parents come first, as in paths
    place = {-1: -1, **{node: k for k, node in enumerate(order)}}
    return PairTree(
        problem,
        tuple(known[node].step for node in order),
        tuple(place[known[node].parent] for node in order),
        tuple(Pair(place[p.better], place[p.worse], p.better_value, p.worse_value) for p in pairs),
    )


# --- file


def write_pairs(path: Path, trees: Iterable[PairTree]) -> int:
    """Write the pairs of trees and return the number of trees."""
    return write_parquet(path, map(_row, trees), Features(PAIR_FEATURES))


def _row(tree: PairTree) -> dict[str, Any]:
    problem = tree.problem
    evidence = [{"region": step.region and to_json(step.region), "told": step.told} for step in tree.steps]
    return {
        "id": problem.id,
        "images": [{"bytes": data, "path": None} for data in problem.images],
        "prompt": problem.question,
        "completions": [step.text for step in tree.steps],
        "parents": list(tree.parents),
        "pairs": [vars(pair) for pair in tree.pairs],
        "answer": problem.answer,
        "evidence": json.dumps(evidence),
        "meta": json.dumps({**problem.meta, "task": problem.task, "answer_type": problem.answer_type}),
    }


def read_pairs(path: Path) -> list[PairTree]:
    """The pairs of a file of train.pairs. UserError names the file and what is wrong with it."""
    with open_parquet(path, "train.pairs") as file:
        if missing := sorted(set(PAIR_FEATURES) - set(file.schema_arrow.names)):
            raise UserError(f"{path} lacks the columns {', '.join(missing)}; make it with train.pairs")
        trees = list(_trees(table_rows(file), path))
    if not any(tree.pairs for tree in trees):
        raise UserError(f"{path} has no pairs; make it from more trees")
    return trees


def _trees(rows: Iterable[dict[str, Any]], path: Path) -> Iterator[PairTree]:
    for row in rows:
        steps = row_steps(row, json.loads(row["evidence"]))
        pairs = tuple(Pair(**pair) for pair in row["pairs"])
        for pair in pairs:
            if (
                not max(pair.better, pair.worse) < len(steps)
                or row["parents"][pair.better] != row["parents"][pair.worse]
            ):
                raise UserError(
                    f"{path}, row {row['id']}: steps {pair.better} and {pair.worse} are a pair, but do not follow the"
                    " same step; make the file again with train.pairs"
                )
        yield PairTree(row_problem(row), tuple(steps), tuple(row["parents"]), pairs)
