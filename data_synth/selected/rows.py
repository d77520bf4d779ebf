"""The rows of selected solutions: trees as in `vlprm.data.dataset`, or the columns of TRL's SFTTrainer.

images       List(Image): the problem's images, then the crops that the policy has seen before the turn
prompt       messages: the question, and the turns before this one
completion   one assistant message: a turn of the policy
id, value    the problem, and what its solution is worth
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from datasets import Image, List, Value

from data_synth.selected.candidates import Group, Row
from vlprm.data.dataset import row_paths, tree_row
from vlprm.data.prefix_tree import prefix_tree
from vlprm.data.trl_format import TURNS
from vlprm.model.inputs import InputBuilder
from vlprm.schema import StepTree, TreeNode, with_ancestors
from vlprm.serving.trl_turns import trl_turn, trl_turns
from vlprm.steps import join_steps, turns_of

SFT_FEATURES = {
    "images": List(Image(decode=False)),
    "prompt": TURNS,
    "completion": TURNS,
    "id": Value("string"),
    "value": Value("float64"),
}


def selected_row(group: Group, places: Sequence[int], values: Sequence[float]) -> Row:
    """The row of a problem's selected solutions, best first; of a pool, without labels. `meta` lists what each is
    worth as `selected`, and the solutions that training learns from."""
    row = _row_of_pool(group, places) if group.row is None else _pruned(group.row, places)
    leaves = [leaf["node"] for leaf in row["leaves"]]
    meta = {**json.loads(row["meta"]), "solutions": leaves, "selected": list(values)}
    return {**row, "meta": json.dumps(meta)}


def _row_of_pool(group: Group, places: Sequence[int]) -> Row:
    paths, parents, steps = prefix_tree([group.solutions[place] for place in places])
    nodes = tuple(TreeNode(step, parent) for step, parent in zip(steps, parents, strict=True))
    leaves = tuple((path[-1], group.answers[place]) for path, place in zip(paths, places, strict=True))
    right = [group.candidates[place].right for place in places]
    return tree_row(group.problem, StepTree(group.problem.id, nodes, leaves), right, {})


def _pruned(row: Row, places: Sequence[int]) -> Row:
    """The row with these leaves and the steps before them alone."""
    leaves = [row["leaves"][place] for place in places]
    kept = sorted(with_ancestors([leaf["node"] for leaf in leaves], row["parents"]))
    new: dict[int | None, int] = {old: n for n, old in enumerate([-1, *kept], -1)}
    every = json.loads(row["evidence"])
    evidence = [{**every[n], "corrected_by": new.get(every[n].get("corrected_by"))} for n in kept]
    return {
        **row,
        **{name: [row[name][n] for n in kept] for name in ("completions", "labels", "error_kinds")},
        "parents": [new[row["parents"][n]] for n in kept],
        "leaves": [{**leaf, "node": new[leaf["node"]]} for leaf in leaves],
        "evidence": json.dumps(evidence),
    }


def sft_rows(row: Row, inputs: InputBuilder) -> Iterator[dict[str, Any]]:
    """The rows of a selected row's solutions for TRL, one per turn of the policy: it learns its own words alone."""
    values = json.loads(row["meta"])["selected"]
    for path, value in zip(row_paths(row), values, strict=True):
        seen = 0
        for written in turns_of(path.steps):
            before, seen = path.steps[:seen], seen + len(written)
            prompt, images = trl_turns(path.problem, before, inputs)
            completion = [trl_turn("assistant", join_steps(written))]
            yield {"images": images, "prompt": prompt, "completion": completion, "id": row["id"], "value": value}
