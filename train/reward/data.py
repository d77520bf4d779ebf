"""Turn labelled solutions into training rows (paths or whole trees) with a target per step."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from train.loop.batches import token_lengths
from train.reward.config import LossConfig, RowsConfig
from train.reward.critiques import critiques_of, taught, weights_of
from train.reward.losses import IGNORE
from train.reward.trees import Tree, is_wrong
from vlprm.data.dataset import LabelledPath
from vlprm.data.prefix_tree import prefix_tree
from vlprm.errors import UserError
from vlprm.model.inputs import InputBuilder
from vlprm.model.packing import Node, PackedRow, depth_first, lay_out
from vlprm.model.reward_model import OUTPUTS
from vlprm.schema import Step, StepLabel

# -1: a wrong step of unknown kind may be either. A zoom to the wrong region counts as a perception error.
KIND_INDEX = {None: -1, "perception": OUTPUTS.index("perception"), "action": OUTPUTS.index("perception"),
              "reasoning": OUTPUTS.index("reasoning")}  # fmt: skip
Example = Tree  # the solutions that make one row
Critiques = Sequence[tuple[int, str]]  # the index of a criticised step, and the critique


@dataclass(frozen=True)
class LabelledRow:
    """A packed row with labels per step: target (IGNORE: no loss), error kind (index of the head's output; -1 unknown),
    whether it is wrong, counts (right, valid), and weight, which grows with the number of solutions that share it.
    `taught` has the weight of each critique id. `siblings` and `candidates` are (better, worse) pairs; `paths` lists
    each solution's steps, if the loss compares solutions or learns from their outcomes; `ranked` has each solution's
    correct steps before its first error, and the error (-1: none)."""

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
    ranked: tuple[tuple[tuple[int, ...], int], ...] = ()


# --- examples


def learnable(tree: Tree, loss: LossConfig) -> Tree:
    """Those solutions of a problem that the loss learns something from."""
    return [path for path in tree if _is_learnt(path, loss)]


def _is_learnt(path: LabelledPath, loss: LossConfig) -> bool:
    if (loss.candidates or loss.labels == "outcome") and path.right is not None:
        return True
    if loss.labels == "outcome":
        return False
    if not loss.reads_labels:  # critiques alone
        return bool(taught(path, loss))
    return any(_target(label, loss, path.problem.id) != IGNORE for label in path.labels)


def lacking(loss: LossConfig) -> str:
    """What a dataset without learnable solutions lacks, with the fix."""
    if loss.labels == "outcome":
        return "a known outcome; use a dataset that says which answers are right, or loss.labels: soft"
    if not loss.reads_labels:
        if loss.critiques == "judge":
            return "a judge that gives reasons and agrees with the labels; set loss.critiques: labels, or ask a judge"
        return "a step to criticise; set loss.critique: 0 and loss.steps: 1, or label more steps"
    if loss.labels == "counts":
        return "a labelled step with rollouts; use a dataset with counts, or loss.labels: soft"
    return "a label; label some steps"


def examples_of(tree: Tree, config: RowsConfig) -> list[Example]:
    """Examples of a problem, each of which becomes one row."""
    if not tree:
        return []
    return [tree] if config.of == "trees" else [[path] for path in tree]


def lengths(example: Example, inputs: InputBuilder, loss: LossConfig) -> tuple[int, int]:
    """Number of tokens of an example's row, and of its longest path."""
    steps, place, parents = _merged(example)
    return token_lengths(_nodes(example, steps, parents, inputs, _critiques(example, place, inputs, loss)))


def _nodes(
    example: Example, steps: Sequence[Step], parents: Sequence[int], inputs: InputBuilder, critiques: Critiques
) -> list[Node]:
    question = inputs.config.critiques.question
    return inputs.tree_nodes(example[0].problem, steps, parents, question, critiques)


def _critiques(example: Example, place: dict[int, int], inputs: InputBuilder, loss: LossConfig) -> Critiques:
    return critiques_of(example, place, inputs.config.critiques, loss) if loss.critique else []


def class_counts(tree: Tree, loss: LossConfig) -> tuple[str, int, int]:
    """The question type of a problem, and the numbers of right and wrong steps of its solutions that have a loss, or of
    right and wrong solutions where the loss learns from outcomes."""
    if loss.labels == "outcome":
        outcomes = [path.right for path in tree]
        return question_type(tree[0]), outcomes.count(True), outcomes.count(False)
    labels = [label for path in tree for label in path.labels if _target(label, loss, path.problem.id) != IGNORE]
    wrong = [is_wrong(label, loss.threshold) for label in labels]
    return question_type(tree[0]), wrong.count(False), wrong.count(True)


def class_weights(counts: Iterable[tuple[str, int, int]], loss: LossConfig) -> dict[tuple[str, bool], float]:
    """Weight of a step by question type and by whether it is wrong, as `loss.balance` and `loss.wrong_weight` say.
    `counts` has `class_counts` of all problems."""
    sums: dict[tuple[str, bool], float] = defaultdict(float)
    for kind, right, wrong in counts:
        sums[kind, False] += right
        sums[kind, True] += wrong
    weights = {key: loss.wrong_weight if key[1] else 1.0 for key, count in sums.items() if count}
    if not loss.balance:
        return weights
    of_type = {kind: sums[kind, False] + sums[kind, True] for kind, _ in list(sums)}
    return {key: weight * of_type[key[0]] / (2 * sums[key]) for key, weight in weights.items()}


def question_type(path: LabelledPath) -> str:
    """The task and the question type of a solution's problem."""
    meta = path.problem.meta
    return f"{meta.get('task', '')}/{meta.get('question_type', '')}"


# --- rows


def labelled_row(
    example: Example, inputs: InputBuilder, loss: LossConfig, weights: dict[tuple[str, bool], float]
) -> LabelledRow:
    """The labelled row of an example. UserError on a target outside [0, 1]."""
    problem = example[0].problem
    steps, place, parents = _merged(example)
    labels = _outcomes(example) if loss.labels == "outcome" else _labels(example)
    critiques = _critiques(example, place, inputs, loss)
    nodes = _nodes(example, steps, parents, inputs, critiques)
    of_solutions = loss.candidates > 0 or loss.labels == "outcome"
    learnt_at = [path.nodes[-1:] if loss.labels == "outcome" else path.nodes for path in example]
    share = Counter(node for nodes in learnt_at for node in nodes)
    share_of = [share[n] for n in place]
    targets = tuple(_target(labels[n], loss, problem.id) for n in place)
    wrong = tuple(is_wrong(labels[n], loss.threshold) for n in place)
    kind = question_type(example[0])
    return LabelledRow(
        id=problem.id,
        row=lay_out(nodes, inputs.positions),
        targets=targets,
        kinds=tuple(KIND_INDEX[labels[n].error_kind] for n in place),
        wrong=wrong,
        counts=tuple((labels[n].mc_correct, labels[n].mc_valid) for n in place),
        weights=tuple(share[n] * weights.get((kind, w), 1.0) for n, w in zip(place, wrong, strict=True)),
        taught=_taught(nodes, _taught_weights(critiques, share_of, inputs, loss)),
        siblings=_sibling_pairs(targets, wrong, parents) if loss.siblings else (),
        candidates=_candidate_pairs(example) if loss.candidates else (),
        paths=tuple(tuple(place[n] for n in path.nodes) for path in example) if of_solutions else (),
        ranked=_ranked(example, place, targets, wrong) if loss.ranks else (),
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


def _outcomes(example: Example) -> dict[int, StepLabel]:
    """The labels of outcomes: at the last step of a solution whether it is right, and none elsewhere. Where equal
    solutions are called right and wrong, the share of right ones."""
    right: dict[int, list[bool]] = {node: [] for path in example for node in path.nodes}
    for path in example:
        if path.right is not None:
            right[path.nodes[-1]].append(path.right)
    return {
        node: StepLabel(target=sum(of_node) / len(of_node) if of_node else None, rule="outcome")
        for node, of_node in right.items()
    }


def _taught_weights(
    critiques: Critiques, share: Sequence[int], inputs: InputBuilder, loss: LossConfig
) -> list[list[float]]:
    """Per critique, the weight of each id and of the end of the turn: the number of solutions that share the criticised
    step, times the weight of the id's part."""
    form, encode = inputs.config.critiques, inputs.text.encode
    return [
        [share[step] * weight for weight in (*weights_of(text, form, loss.reasons, encode), 1.0)]
        for step, text in critiques
    ]


def _taught(nodes: Sequence[Node], weights: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The weight of each critique id in row order; `weights` are in the order of the nodes."""
    of_node = dict(zip((k for k, node in enumerate(nodes) if node.taught), weights, strict=True))
    return tuple(weight for k in depth_first(nodes) if nodes[k].taught for weight in of_node[k])


def _sibling_pairs(
    targets: Sequence[float], wrong: Sequence[bool], parents: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    groups: dict[int, list[int]] = defaultdict(list)
    for k, parent in enumerate(parents):
        if targets[k] != IGNORE:
            groups[parent].append(k)
    return tuple((a, b) for group in groups.values() for a in group for b in group if wrong[b] and not wrong[a])


def _ranked(
    example: Example, place: dict[int, int], targets: Sequence[float], wrong: Sequence[bool]
) -> tuple[tuple[tuple[int, ...], int], ...]:
    """The labelled steps of each solution up to its first error; solutions without a correct one are left out."""
    found = []
    for path in example:
        steps = [k for k in (place[n] for n in path.nodes) if targets[k] != IGNORE]
        end = next((i for i, k in enumerate(steps) if wrong[k]), len(steps))
        if end:
            found.append((tuple(steps[:end]), steps[end] if end < len(steps) else -1))
    return tuple(found)


def check_pairs(pairs: tuple[bool, bool], loss: LossConfig) -> None:
    """UserError if a pairwise loss is on and no example has a pair for it; `pairs` says whether any has a pair of
    solutions, and of siblings."""
    if loss.candidates and not pairs[0]:
        raise UserError(
            "no problem has both right and wrong solutions, which loss.candidates compares; set it to 0, or give a"
            " dataset that says which solutions are right"
        )
    if loss.siblings and not pairs[1]:
        raise UserError(
            "no problem has a right and a wrong step after the same prefix, which loss.siblings compares; set it to 0,"
            " or give a dataset of trees"
        )


def check_counts(counted: bool, loss: LossConfig) -> None:
    """UserError if the value has nothing to learn; `counted` says whether any example has counts of rollouts."""
    if loss.value and not counted:
        raise UserError(
            "no labelled step has rollouts, which loss.value learns from; set it to 0, or give a dataset with counts"
        )


def has_counts(example: Example) -> bool:
    """Whether a labelled step of an example has counts of rollouts."""
    return any(label.target is not None and label.mc_valid for label in _labels(example).values())


def has_pairs(example: Example, loss: LossConfig) -> tuple[bool, bool]:
    """Whether an example has a right and a wrong solution, and a right and a wrong step after the same prefix."""
    _, place, parents = _merged(example)
    known = _labels(example)
    labels = [known[n] for n in place]
    targets = [_target(label, loss, example[0].problem.id) for label in labels]
    siblings = _sibling_pairs(targets, [is_wrong(label, loss.threshold) for label in labels], parents)
    return bool(_candidate_pairs(example)), bool(siblings)


def _candidate_pairs(example: Example) -> tuple[tuple[int, int], ...]:
    """(right, wrong) solutions; solutions without a result are in no pair."""
    right = [i for i, path in enumerate(example) if path.right]
    wrong = [i for i, path in enumerate(example) if path.right is False]
    return tuple((a, b) for a in right for b in wrong)
