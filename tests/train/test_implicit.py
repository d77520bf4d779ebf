"""The implicit head learns from outcomes of whole solutions alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from tests.learnt import load_trees
from tests.model.test_implicit import moved
from tests.train.test_losses import assert_same, gradient, shortened
from train.prm import split_rows
from train.reward.config import LossConfig, PrmConfig, RowsConfig
from train.reward.data import labelled_row, learnable
from train.reward.losses import IGNORE
from vlprm.data.dataset import LabelledPath
from vlprm.errors import UserError
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import Checkpoint, freeze, load_policy
from vlprm.model.reward_loading import load_reward_model, save_reward_model

OUTCOME = LossConfig(labels="outcome", beta=0.2)


@pytest.fixture(scope="module")
def trees(dataset: Path) -> list[list[LabelledPath]]:
    """Solutions of four problems, right and wrong ones, some of them the beginning of another."""
    taken = [learnable(tree, OUTCOME)[:4] for tree in load_trees(dataset, RowsConfig(), None)]
    trees = [[shortened(path, i % 2) for i, path in enumerate(tree)] for tree in taken if len(tree) > 1][:4]
    trees[0] = [trees[0][0], replace(shortened(trees[0][0], 1), right=not trees[0][0].right), *trees[0][1:]]
    assert {path.right for tree in trees for path in tree} == {True, False}
    return trees


@pytest.fixture
def checkpoint(backbone: Path) -> Checkpoint:
    made = load_reward_model(backbone, new_head="implicit")
    made.model.beta = OUTCOME.beta
    moved(made.model)
    return made


def written_nats(policy: Checkpoint, path: LabelledPath) -> torch.Tensor:
    """The negative log-likelihood of what the policy wrote in a solution, by the plain class."""
    row = policy.inputs.row(path.problem, path.steps)
    log_p = policy.model(**policy.inputs.batch([row])).logits[0].log_softmax(-1)
    written = [at for at, step in enumerate(row.written_in) if step >= 0]
    return -log_p[[at - 1 for at in written], [row.ids[at] for at in written]].sum()


def test_loss_and_gradients_are_those_of_the_plain_class(
    checkpoint: Checkpoint, trees: list[list[LabelledPath]], backbone: Path, tmp_path: Path
) -> None:
    """The cross-entropy of each solution's log-ratio with its outcome, one solution at a time."""
    save_reward_model(checkpoint, tmp_path / "policy", checkpoint.config)
    policy, reference = load_policy(tmp_path / "policy"), load_policy(backbone)
    losses = []
    for path in trees[0]:
        with torch.no_grad():
            others = written_nats(reference, path)
        ratio = OUTCOME.beta * (others - written_nats(policy, path))
        losses.append(F.binary_cross_entropy_with_logits(ratio, torch.tensor(float(path.right or False))))
    expected = torch.stack(losses).mean()
    expected.backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad for name, p in policy.model.named_parameters() if p.grad is not None}
    found = gradient(checkpoint, [[labelled_row(trees[0], checkpoint.inputs, OUTCOME, {})]], OUTCOME)
    assert_same(found, (expected.item(), gradients), bound=1e-4)
    assert max(float(g.abs().max()) for g in gradients.values()) > 1e-2


def test_a_tree_has_the_loss_and_gradients_of_its_paths(
    checkpoint: Checkpoint, trees: list[list[LabelledPath]]
) -> None:
    """However the batch is split, and with weights of right and wrong solutions."""
    loss = replace(OUTCOME, wrong_weight=2.0)
    weights = {("", wrong): 1.0 + wrong for wrong in (True, False)}
    rows = [labelled_row(tree, checkpoint.inputs, loss, weights) for tree in trees]
    paths = [[labelled_row([path], checkpoint.inputs, loss, weights)] for tree in trees for path in tree]
    whole = gradient(checkpoint, [rows], loss)
    assert_same(gradient(checkpoint, paths, loss), whole)
    assert_same(gradient(checkpoint, [rows[:1], rows[1:]], loss), whole)


def test_a_solution_keeps_its_own_outcome(inputs: InputBuilder, trees: list[list[LabelledPath]]) -> None:
    """Also where it ends within another one, and where labels of steps say otherwise."""
    row = labelled_row(trees[0], inputs, OUTCOME, {})
    known = {steps[-1]: float(path.right or False) for steps, path in zip(row.paths, trees[0], strict=True)}
    assert [target for target in row.targets if target != IGNORE] == [known[k] for k in sorted(known)]
    assert {row.weights[k] for k in known} == {1.0}
    longer, beginning = row.paths[0], row.paths[1]
    assert beginning == longer[:-1]
    assert row.targets[longer[-1]] == 1 - row.targets[beginning[-1]]
    twice = labelled_row([trees[0][0], replace(trees[0][0], right=not trees[0][0].right)], inputs, OUTCOME, {})
    assert [(t, w) for t, w in zip(twice.targets, twice.weights, strict=True) if t != IGNORE] == [(0.5, 2.0)]


def test_solutions_without_an_outcome_are_left_out_and_counted(
    dataset: Path, tmp_path: Path, inputs: InputBuilder
) -> None:
    """Labels of steps do not count; without any outcome, there is nothing to learn."""
    trees = load_trees(dataset, RowsConfig())
    known = sum(path.right is not None for tree in trees for path in tree)
    config = PrmConfig(dataset, tmp_path, head="implicit", loss=OUTCOME, held_out=0.0)
    assert split_rows(config, inputs)[0].left_out == {
        "solutions_without_labels": sum(map(len, trees)) - known, "rows_left_out": 0, "eval_rows_left_out": 0
    }  # fmt: skip
    path = trees[0][0]
    assert learnable([path, replace(path, right=None)], OUTCOME) == [path]
    unknown = tmp_path / "d.jsonl"
    unknown.write_text('{"prompt": "Q?", "completions": ["one", "two"], "labels": [true, false]}\n' * 3)
    with pytest.raises(ValueError, match="none of its 3 solutions has a known outcome; use a dataset that says which"):
        split_rows(replace(config, dataset=unknown), inputs)


def test_a_reference_is_nothing_to_train(checkpoint: Checkpoint) -> None:
    family = checkpoint.inputs.family
    freeze(checkpoint.model, family, ("vision",))
    assert not any(parameter.requires_grad for parameter in checkpoint.model.reference.parameters())
    with pytest.raises(UserError, match="leaves nothing to train"):
        freeze(checkpoint.model, family, ("vision", "projector", "text"))
