"""Labelled solutions -> training rows: paths or whole trees, in batches under a token budget.

Shapes: B rows, S steps (padded), C candidates (padded), P pairs.
"""

from __future__ import annotations

import logging
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from train.critiques import critiques_of
from train.losses import IGNORE, LossConfig
from train.trees import RowsConfig, Tree, is_wrong
from vlprm.dataset import LabelledPath
from vlprm.inputs import InputBuilder
from vlprm.packing import Node, Row, depth_first, lay_out, padded_batches
from vlprm.prompts import critique_question
from vlprm.reward_model import OUTPUTS
from vlprm.schema import Step, StepLabel

log = logging.getLogger(__name__)

# A wrong step whose kind is not known may be of either; a zoom at the wrong place is a way of not seeing.
KIND_INDEX = {None: -1, "perception": OUTPUTS.index("perception"), "action": OUTPUTS.index("perception"),
              "reasoning": OUTPUTS.index("reasoning")}  # fmt: skip
# What a batch has beside the inputs of the model.
ANSWERS = ("labels", "error_kinds", "wrong", "counts", "weights", "siblings", "candidates", "paths", "taught_weights",
           "totals", "ids")  # fmt: skip
SORTED_RUN = 16  # batches whose rows are sorted by length together
Example = Tree  # that makes a row


@dataclass(frozen=True)
class LabelledRow:
    """A row with, for each step, its target (IGNORE: no loss), error kind (index of the head's output; -1 unknown),
    whether it is called wrong, right and valid rollouts, and weight, the number of solutions that it stands for; and
    that number for each id that is taught. Pairs are of better and worse siblings, and of right and wrong candidates;
    `paths` has the steps of each candidate."""

    id: str
    row: Row
    targets: tuple[float, ...]
    kinds: tuple[int, ...]
    wrong: tuple[bool, ...]
    counts: tuple[tuple[int, int], ...]
    weights: tuple[float, ...]
    taught: tuple[float, ...] = ()
    siblings: tuple[tuple[int, int], ...] = ()
    candidates: tuple[tuple[int, int], ...] = ()
    paths: tuple[tuple[int, ...], ...] = ()


# --- what is learnt from


def rows_of(trees: Sequence[Tree], config: RowsConfig) -> list[Example]:
    """What makes a row each."""
    return [*trees] if config.of == "trees" else [[path] for tree in trees for path in tree]


def examples_of(
    trees: Sequence[Tree], config: RowsConfig, inputs: InputBuilder, loss: LossConfig
) -> tuple[list[Example], list[int]]:
    """What makes a row each, and how many tokens it will have. ValueError on an over-long one, unless it is dropped."""
    examples = rows_of(trees, config)
    sizes = [sum(len(node.segment.ids) for node in _nodes(example, inputs, loss)) for example in examples]
    over = [i for i, size in enumerate(sizes) if size > config.longest]
    if over and config.over_long == "refuse":
        raise ValueError(
            f"{examples[over[0]][0].problem.id} and {len(over) - 1} more have up to {max(sizes)} tokens; raise"
            f" rows.longest (now {config.longest}), or leave them out with rows.over_long: drop"
        )
    if over:
        log.info("%d of %d rows are longer than %d tokens and left out", len(over), len(examples), config.longest)
    kept = [i for i, size in enumerate(sizes) if size <= config.longest]
    return [examples[i] for i in kept], [sizes[i] for i in kept]


def _nodes(example: Example, inputs: InputBuilder, loss: LossConfig) -> list[Node]:
    steps, place, parents = _merged(example)
    question = critique_question(inputs.profile.prompt_template)
    critiques = critiques_of(example, place, question, loss.threshold) if loss.critique else []
    return inputs.tree_nodes(example[0].problem, steps, parents, question, critiques)


def class_weights(trees: Sequence[Tree], loss: LossConfig) -> dict[tuple[str, bool], float]:
    """Weight of a step by its question's type and whether its target calls it wrong."""
    counts: dict[tuple[str, bool], float] = defaultdict(float)
    for tree in trees:
        for path in tree:
            for label in path.labels:
                if label.target is not None:
                    counts[_question_type(path), is_wrong(label, loss.threshold)] += 1
    weights = {key: loss.wrong_weight if key[1] else 1.0 for key in counts}
    if not loss.balance:
        return weights
    of_type = {kind: counts[kind, False] + counts[kind, True] for kind, _ in list(counts)}
    return {key: weight * of_type[key[0]] / (2 * counts[key]) for key, weight in weights.items()}


def _question_type(path: LabelledPath) -> str:
    meta = path.problem.meta
    return f"{meta.get('task', '')}/{meta.get('question_type', '')}"


# --- rows


def labelled_row(
    example: Example, inputs: InputBuilder, loss: LossConfig, weights: dict[tuple[str, bool], float]
) -> LabelledRow:
    """The row of some solutions of one problem. ValueError on a target outside [0, 1]: the loss would be nonsense."""
    problem = example[0].problem
    _, place, parents = _merged(example)
    labels = _labels(example)
    nodes = _nodes(example, inputs, loss)
    share = Counter(node for path in example for node in path.nodes)
    targets = tuple(_target(labels[n], loss, problem.id) for n in place)
    wrong = tuple(is_wrong(labels[n], loss.threshold) for n in place)
    kind = _question_type(example[0])
    return LabelledRow(
        id=problem.id,
        row=lay_out(nodes, inputs.positions),
        targets=targets,
        kinds=tuple(KIND_INDEX[labels[n].error_kind] for n in place),
        wrong=wrong,
        counts=tuple((labels[n].mc_correct, labels[n].mc_valid) for n in place),
        weights=tuple(share[n] * weights.get((kind, w), 1.0) for n, w in zip(place, wrong, strict=True)),
        taught=_taught(nodes, [share[n] for n in place]),
        siblings=_sibling_pairs(targets, wrong, parents) if loss.siblings else (),
        candidates=_candidate_pairs(example) if loss.candidates else (),
        paths=tuple(tuple(place[n] for n in path.nodes) for path in example) if loss.candidates else (),
    )


def _merged(example: Example) -> tuple[list[Step], dict[int, int], list[int]]:
    """The steps of some solutions, each once and after its parent; the place of each node among them; and the places of
    their parents (-1: the prompt)."""
    steps: list[Step] = []
    place: dict[int, int] = {}
    parents: list[int] = []
    for path in example:
        for before, node, step in zip((-1, *path.nodes), path.nodes, path.steps, strict=False):
            if node not in place:
                place[node] = len(place)
                steps.append(step)
                parents.append(place.get(before, -1))
    return steps, place, parents


def _target(label: StepLabel, loss: LossConfig, problem_id: str) -> float:
    if label.target is None or (loss.labels == "counts" and not label.mc_valid):
        return float(IGNORE)
    if not 0 <= label.target <= 1:
        raise ValueError(f"{problem_id}: target {label.target} is not in [0, 1]; correct the dataset's labels")
    return float(not is_wrong(label, loss.threshold)) if loss.labels == "hard" else label.target


def _labels(example: Example) -> dict[int, StepLabel]:
    return {node: label for path in example for node, label in zip(path.nodes, path.labels, strict=True)}


def _taught(nodes: Sequence[Node], share: Sequence[int]) -> tuple[float, ...]:
    """Of each id that is taught, in the order of the row: how many solutions have the step that it is about."""
    counts: list[float] = []
    for k in depth_first(nodes):
        if nodes[k].taught:
            above = nodes[nodes[k].parent]
            step = above.writes if above.writes >= 0 else nodes[above.parent].writes  # a question may stand between
            counts += [share[step]] * nodes[k].segment.written
    return tuple(counts)


def _sibling_pairs(
    targets: Sequence[float], wrong: Sequence[bool], parents: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    groups: dict[int, list[int]] = defaultdict(list)
    for k, parent in enumerate(parents):
        if targets[k] != IGNORE:
            groups[parent].append(k)
    return tuple((a, b) for group in groups.values() for a in group for b in group if wrong[b] and not wrong[a])


def check_pairs(examples: Sequence[Example], loss: LossConfig) -> None:
    """ValueError where pairs are to be learnt from and no row has one."""
    if loss.candidates and not any(map(_candidate_pairs, examples)):
        raise ValueError(
            "no problem has right and wrong solutions, between which loss.candidates learns; set it to 0, or give a"
            " dataset that says which are right"
        )
    if loss.siblings and not any(_has_siblings(example, loss) for example in examples):
        raise ValueError(
            "no problem has a right and a wrong step after the same steps, between which loss.siblings learns; set it"
            " to 0, or give a dataset of trees"
        )


def _has_siblings(example: Example, loss: LossConfig) -> bool:
    _, place, parents = _merged(example)
    labels = [_labels(example)[n] for n in place]
    targets = [_target(label, loss, example[0].problem.id) for label in labels]
    return bool(_sibling_pairs(targets, [is_wrong(label, loss.threshold) for label in labels], parents))


def _candidate_pairs(example: Example) -> tuple[tuple[int, int], ...]:
    """Right and wrong solutions; those that came to no result are in no pair."""
    right = [i for i, path in enumerate(example) if path.right]
    wrong = [i for i, path in enumerate(example) if path.right is False]
    return tuple((a, b) for a in right for b in wrong)


# --- batches


def plan_batches(examples: Sequence[Example], sizes: Sequence[int], budget: int, seed: int) -> list[list[Example]]:
    """All examples, in a random order of batches whose padded size stays under the budget.

    Rows are drawn at random in runs of some batches, and sorted by length within a run, so that little is padded; the
    batches are then shuffled, so that the order of lengths means nothing.
    """
    rng = random.Random(seed)
    order = rng.sample(range(len(examples)), len(examples))
    runs: list[list[int]] = [[]]
    for i in order:
        if sum(sizes[k] for k in runs[-1]) > SORTED_RUN * budget:
            runs.append([])
        runs[-1].append(i)
    batches = [[run[k] for k in batch] for run in runs for batch in padded_batches([sizes[i] for i in run], budget)]
    return [[examples[i] for i in batch] for batch in rng.sample(batches, len(batches))]


def evened(batches: Sequence[list[Example]], multiple: int) -> list[list[Example]]:
    """As many batches as whole optimizer steps have, by halving the largest: where some devices have a batch and others
    none, the Trainer would give them rows a second time. ValueError where there are too few rows."""
    batches = list(batches)
    while len(batches) % multiple:
        largest = max(range(len(batches)), key=lambda i: len(batches[i]))
        rows = batches[largest]
        if len(rows) < 2:
            raise ValueError(
                f"{len(batches)} rows do not make whole steps of {multiple} batches; take fewer devices or parts"
            )
        batches[largest : largest + 1] = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return batches


def batch_rows(rows: Sequence[LabelledRow], inputs: InputBuilder) -> dict[str, Tensor]:
    """A padded batch with `labels` (B, S) float, `IGNORE` where there is no loss, `error_kinds` (B, S), `counts`
    (B, S, 2), `wrong` and `weights` (B, S), `siblings` and `candidates` (P, 3) of (row, better, worse), `paths`
    (B, C, S), `taught_weights` (N) of the ids that are taught, and `totals` (4): what the batch adds to the sums that
    the loss is divided by."""
    batch = inputs.step_batch(inputs.with_an_image([r.row for r in rows]))
    shape = batch["step_ends"].shape
    labels_BS, kinds_BS, weights_BS = torch.full(shape, float(IGNORE)), torch.full(shape, -1), torch.zeros(shape)
    counts_BS2, wrong_BS = torch.zeros(*shape, 2), torch.zeros(shape, dtype=torch.long)
    paths_BCS = torch.zeros(len(rows), max(1, *(len(row.paths) for row in rows)), shape[1])
    for b, row in enumerate(rows):
        size = len(row.targets)
        labels_BS[b, :size], kinds_BS[b, :size] = torch.tensor(row.targets), torch.tensor(row.kinds)
        wrong_BS[b, :size] = torch.tensor(row.wrong).long()
        counts_BS2[b, :size], weights_BS[b, :size] = torch.tensor(row.counts).float(), torch.tensor(row.weights)
        for c, path in enumerate(row.paths):
            paths_BCS[b, c, list(path)] = 1
    siblings_P3, candidates_P3 = _pairs([r.siblings for r in rows]), _pairs([r.candidates for r in rows])
    taught_N = torch.tensor([weight for row in rows for weight in row.taught])
    labelled = weights_BS[labels_BS != IGNORE].sum()
    return {
        **batch,
        "labels": labels_BS, "error_kinds": kinds_BS, "wrong": wrong_BS, "counts": counts_BS2, "weights": weights_BS,
        "siblings": siblings_P3, "candidates": candidates_P3, "paths": paths_BCS, "taught_weights": taught_N,
        "totals": torch.tensor([labelled, len(siblings_P3), len(candidates_P3), taught_N.sum()]),
    }  # fmt: skip


def model_inputs(batch: dict[str, Any]) -> dict[str, Any]:
    """What of a batch the model is given."""
    return {name: value for name, value in batch.items() if name not in ANSWERS}


def _pairs(of_rows: Sequence[Sequence[tuple[int, int]]]) -> Tensor:
    return torch.tensor([(b, *pair) for b, pairs in enumerate(of_rows) for pair in pairs], dtype=torch.long).view(-1, 3)
