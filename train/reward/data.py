"""Turn labelled solutions into training rows (paths or whole trees) with a target per step."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from train.loop.batches import token_lengths
from train.reward.config import LossConfig, RowsConfig
from train.reward.critiques import critiques_of
from train.reward.losses import IGNORE
from train.reward.trees import Tree, is_wrong
from vlprm.data.dataset import LabelledPath
from vlprm.data.prefix_tree import prefix_tree
from vlprm.errors import UserError
from vlprm.model.inputs import InputBuilder
from vlprm.model.packing import Node, PackedRow, depth_first, lay_out
from vlprm.model.reward_model import OUTPUTS
from vlprm.prompts import critique_question
from vlprm.schema import Step, StepLabel

log = logging.getLogger(__name__)

# -1: a wrong step of unknown kind may be either. A zoom to the wrong region counts as a perception error.
KIND_INDEX = {None: -1, "perception": OUTPUTS.index("perception"), "action": OUTPUTS.index("perception"),
              "reasoning": OUTPUTS.index("reasoning")}  # fmt: skip
Example = Tree  # the solutions that make one row


@dataclass(frozen=True)
class LabelledRow:
    """A packed row with labels per step: target (IGNORE: no loss), error kind (index of the head's output; -1 unknown),
    whether it is wrong, counts (right, valid), and weight, which grows with the number of solutions that share it.
    `taught` has the weight of each critique id. `siblings` and `candidates` are (better, worse) pairs; `paths` lists
    each candidate's steps."""

    id: str
    row: PackedRow
    targets: tuple[float, ...]
    kinds: tuple[int, ...]
    wrong: tuple[bool, ...]
    counts: tuple[tuple[int, int], ...]
    weights: tuple[float, ...]
    taught: tuple[float, ...] = ()
    siblings: tuple[tuple[int, int], ...] = ()
    candidates: tuple[tuple[int, int], ...] = ()
    paths: tuple[tuple[int, ...], ...] = ()


# --- examples


def learnable(trees: Sequence[Tree], loss: LossConfig) -> tuple[list[Tree], int]:
    """The trees with only those solutions that the loss learns something from, and the number of the others. UserError
    if none remains."""
    kept = [[path for path in tree if _is_learnt(path, loss)] for tree in trees]
    left_out = sum(map(len, trees)) - sum(map(len, kept))
    if not any(kept):
        raise UserError(f"none of its {left_out} solutions has {_lacking(loss)}")
    if left_out:
        log.info("%d solutions have no label that the loss reads, and were left out", left_out)
    return [tree for tree in kept if tree], left_out


def _is_learnt(path: LabelledPath, loss: LossConfig) -> bool:
    if loss.candidates and path.right is not None:
        return True
    if not (loss.steps or loss.siblings):  # critiques alone
        return bool(critiques_of([path], {node: k for k, node in enumerate(path.nodes)}, "", loss.threshold))
    return any(_target(label, loss, path.problem.id) != IGNORE for label in path.labels)


def _lacking(loss: LossConfig) -> str:
    if not (loss.steps or loss.siblings):
        return "a step to criticise; set loss.critique: 0 and loss.steps: 1, or label more steps"
    if loss.labels == "counts":
        return "a labelled step with rollouts; use a dataset with counts, or loss.labels: soft"
    return "a label; label some steps"


def rows_of(trees: Sequence[Tree], config: RowsConfig) -> list[Example]:
    """Examples, each of which becomes one row."""
    return [*trees] if config.of == "trees" else [[path] for tree in trees for path in tree]


def examples_of(
    trees: Sequence[Tree], config: RowsConfig, inputs: InputBuilder, loss: LossConfig
) -> tuple[list[Example], list[int]]:
    """Examples and their lengths in tokens. Rows longer than `config.longest`, or with a solution longer than the
    backbone's context, raise UserError or are dropped, as `config.over_long` says."""
    examples = rows_of(trees, config)
    lengths = [token_lengths(_nodes(example, inputs, loss)) for example in examples]
    fits = [size <= config.longest and depth <= inputs.context for size, depth in lengths]
    if False in fits and config.over_long == "refuse":
        problem = examples[fits.index(False)][0].problem
        first = f"row {problem.meta.get('row')} of the dataset ({problem.id})"
        size, depth = map(max, zip(*lengths, strict=True))
        if depth > inputs.context:
            raise UserError(
                f"{first} or a later one has a solution of {depth} tokens, and the backbone reads {inputs.context};"
                " skip it with rows.over_long: drop, or lower max_pixels"
            )
        raise UserError(
            f"{first} and {fits.count(False) - 1} more problems have up to {size} tokens; raise rows.longest (now"
            f" {config.longest}), or skip them with rows.over_long: drop"
        )
    if False in fits:
        log.info("%d of %d rows are too long and were skipped", fits.count(False), len(examples))
    kept = [i for i, fit in enumerate(fits) if fit]
    if examples and not kept:
        raise UserError(
            f"all {len(examples)} rows are too long for rows.longest ({config.longest}) or the backbone; raise"
            " rows.longest, or lower max_pixels"
        )
    return [examples[i] for i in kept], [lengths[i][0] for i in kept]


def _nodes(example: Example, inputs: InputBuilder, loss: LossConfig) -> list[Node]:
    steps, place, parents = _merged(example)
    question = critique_question(inputs.config.prompt_template)
    critiques = critiques_of(example, place, question, loss.threshold) if loss.critique else []
    return inputs.tree_nodes(example[0].problem, steps, parents, question, critiques)


def class_weights(trees: Sequence[Tree], loss: LossConfig) -> dict[tuple[str, bool], float]:
    """Weight of a step by question type and by whether it is wrong, as `loss.balance` and `loss.wrong_weight` say."""
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
    """The labelled row of an example. UserError on a target outside [0, 1]."""
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
    """The steps of an example, each once and after its parent; the index of each node in this list; and the index of
    each step's parent (-1: the prompt)."""
    step_of = {node: step for path in example for node, step in zip(path.nodes, path.steps, strict=True)}
    _, parents, nodes = prefix_tree(path.nodes for path in example)
    return [step_of[node] for node in nodes], {node: k for k, node in enumerate(nodes)}, parents


def _target(label: StepLabel, loss: LossConfig, problem_id: str) -> float:
    if label.target is None or (loss.labels == "counts" and not label.mc_valid):
        return float(IGNORE)
    if not 0 <= label.target <= 1:
        raise UserError(f"{problem_id}: target {label.target} is not in [0, 1]; correct the dataset's labels")
    return float(not is_wrong(label, loss.threshold)) if loss.labels == "hard" else label.target


def _labels(example: Example) -> dict[int, StepLabel]:
    return {node: label for path in example for node, label in zip(path.nodes, path.labels, strict=True)}


def _taught(nodes: Sequence[Node], share: Sequence[int]) -> tuple[float, ...]:
    """For each critique id, in row order: the number of solutions that share the criticised step."""
    counts: list[float] = []
    for k in depth_first(nodes):
        if nodes[k].taught:
            above = nodes[nodes[k].parent]
            step = above.writes if above.writes >= 0 else nodes[above.parent].writes  # a question may be in between
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
    """UserError if a pairwise loss is on and no example has a pair for it."""
    if loss.candidates and not any(map(_candidate_pairs, examples)):
        raise UserError(
            "no problem has both right and wrong solutions, which loss.candidates compares; set it to 0, or give a"
            " dataset that says which solutions are right"
        )
    if loss.siblings and not any(_has_siblings(example, loss) for example in examples):
        raise UserError(
            "no problem has a right and a wrong step after the same prefix, which loss.siblings compares; set it to 0,"
            " or give a dataset of trees"
        )


def _has_siblings(example: Example, loss: LossConfig) -> bool:
    _, place, parents = _merged(example)
    known = _labels(example)
    labels = [known[n] for n in place]
    targets = [_target(label, loss, example[0].problem.id) for label in labels]
    return bool(_sibling_pairs(targets, [is_wrong(label, loss.threshold) for label in labels], parents))


def _candidate_pairs(example: Example) -> tuple[tuple[int, int], ...]:
    """(right, wrong) solutions; solutions without a result are in no pair."""
    right = [i for i, path in enumerate(example) if path.right]
    wrong = [i for i, path in enumerate(example) if path.right is False]
    return tuple((a, b) for a in right for b in wrong)
