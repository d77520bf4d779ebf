"""The losses: their values, and that no split of a batch, into parts or into paths, changes them."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from tests.learnt import load_trees, weights_of
from train.loop.batches import model_inputs
from train.reward.batches import NOT_INPUTS, batch_rows
from train.reward.config import LossConfig, RowsConfig
from train.reward.data import LabelledRow, labelled_row
from train.reward.losses import (
    IGNORE,
    beta_binomial,
    candidate_means,
    count_nats,
    log_probabilities,
    pairwise_loss,
    rank_loss,
    step_loss,
    training_loss,
    value_loss,
)
from train.reward.trees import is_wrong, merged
from vlprm.data.dataset import LabelledPath
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import Checkpoint
from vlprm.model.reward_loading import load_reward_model
from vlprm.model.reward_model import StepOutput, concentration

PACKED = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "llava_onevision", "perception_lm", "llava"]
ALL = LossConfig(balance=True, siblings=0.7, candidates=0.3, value=0.5, ranks=0.4)


def one_step(logits: list[float], label: float, kind: int = -1, **batch: Any) -> tuple[Tensor, dict[str, Any]]:
    made = {"labels": [[label]], "error_kinds": [[kind]], "weights": [[1.0]], "counts": [[[0.0, 0.0]]], **batch}
    return torch.tensor([[logits]]), {name: torch.tensor(value) for name, value in made.items()}


def step(config: LossConfig, *args: Any, **batch: Any) -> float:
    logits, made = one_step(*args, **batch)
    return float(step_loss(log_probabilities(logits, config), made, config))


def test_a_steps_loss_is_the_soft_cross_entropy() -> None:
    p, _, reasoning = torch.tensor([2.0, 0.5, -1.0]).softmax(-1).tolist()
    cross = lambda target, error: -(target * math.log(p) + (1 - target) * math.log(error))  # noqa: E731
    given = [2.0, 0.5, -1.0]
    assert step(LossConfig(), given, 0.25, 2) == pytest.approx(cross(0.25, reasoning), abs=1e-6)
    assert step(LossConfig(), given, 0.25) == pytest.approx(cross(0.25, 1 - p), abs=1e-6)
    assert step(LossConfig(error_kinds=False), given, 0.25, 1) == pytest.approx(cross(0.25, 1 - p), abs=1e-6)
    assert step(LossConfig(), given, 0.25, 2, weights=[[3.0]]) == pytest.approx(3 * cross(0.25, reasoning), abs=1e-6)
    assert step(LossConfig(), given, float(IGNORE)) == 0.0
    assert step(LossConfig(), [1.0, -1.0], 1.0) == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-6)


def test_counts_are_a_beta_binomial_draw() -> None:
    """Compared with scipy, whose likelihood includes the binomial coefficient; the best reward is near the share of
    right rollouts."""
    from scipy.special import comb
    from scipy.stats import betabinom

    for p, right, valid in ((0.3, 2, 8), (0.9, 8, 8), (0.5, 0, 4)):
        ours = beta_binomial(torch.tensor([math.log(p)]), torch.tensor([[right, valid]]), 10.0)
        whole = betabinom.logpmf(right, valid, 10 * p, 10 * (1 - p)) - math.log(comb(valid, right))
        assert float(ours) == pytest.approx(whole, abs=1e-5)
    rates = torch.linspace(0.01, 0.99, 99)
    likeliest = rates[beta_binomial(rates.log(), torch.tensor([[6.0, 8.0]]).expand(99, 2), 10.0).argmax()]
    assert 0.65 < float(likeliest) < 0.8


def test_a_concentration_is_learnt_where_the_counts_show_it() -> None:
    """Sure of a share that the rollouts have, unsure of one that they have not; finite where all rollouts agree, at any
    mean and concentration."""
    assert concentration(torch.tensor([0.0])).item() == pytest.approx(4.0)
    config = LossConfig(labels="counts", concentration="learned")
    logit = torch.zeros(2, requires_grad=True)
    log_p, counts = torch.tensor([0.5, 0.9]).log(), torch.tensor([[4.0, 8.0], [1.0, 8.0]])
    nats = count_nats(log_p, counts, logit, config)
    assert nats.tolist() == pytest.approx((-beta_binomial(log_p, counts, 4.0)).tolist(), abs=1e-5)
    (slope,) = torch.autograd.grad(nats.sum(), logit, retain_graph=True)
    assert slope[0] < 0 < slope[1]
    more = count_nats(log_p, counts, logit, replace(config, evidence=0.05)) - nats
    assert more.tolist() == pytest.approx([0.0, 0.05 * (0.9 - 1 / 8) * 4], abs=1e-5)
    for right in (0.0, 8.0):
        for p, z in itertools.product((-30.0, 0.0, 30.0), (-50.0, 0.0, 1e4)):
            mean, sure = torch.tensor([p], requires_grad=True), torch.tensor([z], requires_grad=True)
            loss = count_nats(torch.nn.functional.logsigmoid(mean), torch.tensor([[right, 8.0]]), sure, config).sum()
            slopes = torch.autograd.grad(loss, (mean, sure))
            assert all(x.isfinite().all() for x in (loss, *slopes))


def test_counts_and_error_kinds_are_learnt_side_by_side() -> None:
    """The loss is the likelihood of the counts, and the cross-entropy of the kind given that the step is wrong."""
    given, counts = [2.0, 0.5, -1.0], [[[2.0, 8.0]]]
    alone = step(LossConfig(labels="counts", error_kinds=False), given, 0.25, 2, counts=counts)
    _, perception, reasoning = torch.tensor(given).softmax(-1).tolist()
    of_kind = -0.75 * math.log(reasoning / (perception + reasoning))
    both = step(LossConfig(labels="counts"), given, 0.25, 2, counts=counts)
    assert both == pytest.approx(alone + of_kind, abs=1e-5)
    assert step(LossConfig(labels="counts"), given, 0.25, counts=counts) == pytest.approx(alone, abs=1e-6)


def test_the_value_is_learnt_from_rollouts_alone() -> None:
    """A step without rollouts, or without a label, has no loss; the others have the likelihood of their counts."""
    logit = torch.tensor([[0.7, -3.0, 2.0]], requires_grad=True)
    batch = {
        "labels": torch.tensor([[0.9, 0.2, IGNORE]]),
        "counts": torch.tensor([[[6.0, 8.0], [0.0, 0.0], [1.0, 8.0]]]),
        "weights": torch.tensor([[2.0, 1.0, 1.0]]),
    }
    loss = value_loss(logit, batch, LossConfig())
    p = 1 / (1 + math.exp(-0.7))
    expected = beta_binomial(torch.tensor([math.log(p)]), torch.tensor([[6.0, 8.0]]), 10.0)
    assert loss.item() == pytest.approx(-2 * expected.item(), abs=1e-5)
    (slope,) = torch.autograd.grad(loss, logit)
    assert slope[0, 0] != 0
    assert slope[0, 1:].tolist() == [0, 0]
    sure, config = torch.zeros(1, 3, requires_grad=True), LossConfig(concentration="learned", evidence=1.0)
    (slope,) = torch.autograd.grad(value_loss(logit, batch, config, sure), sure)
    assert slope[0, 0] != 0
    assert slope[0, 1:].tolist() == [0, 0]


def test_the_value_takes_nothing_from_the_classes(backbone: Path, trees: list[list[LabelledPath]]) -> None:
    """On a frozen backbone, `correct` learns the same with a value as without."""
    slopes = []
    for loss in (LossConfig(), LossConfig(value=1.0)):
        checkpoint = trained(backbone, loss=loss)
        checkpoint.model.score.weight.data[:3] = torch.linspace(-0.3, 0.3, 3 * 64).view(3, 64)
        rows = [labelled_row(trees[0], checkpoint.inputs, loss, {})]
        slopes.append(gradient(checkpoint, [rows], loss)[1]["score.weight"])
    assert slopes[1][3].abs().max() > 0
    assert slopes[1][:3].flatten().tolist() == pytest.approx(slopes[0].flatten().tolist(), abs=1e-6)


def test_ranks_rise_along_a_solution_and_fall_at_its_error() -> None:
    """Compared with the formula; without an error there is no e^0, and the only correct step costs nothing."""
    a, b, c = 0.3, -0.2, 1.1
    logit = torch.tensor([[a, b, c]], requires_grad=True)
    with_error = rank_loss(logit, torch.tensor([[[1, 1, -1]]]), 2.0)
    below = 1 + math.exp(c + 2)
    first, second = math.exp(a) / (math.exp(a) + below), math.exp(b) / (math.exp(a) + math.exp(b) + below)
    assert with_error.item() == pytest.approx(-(math.log(first) + math.log(second)) / 2, abs=1e-5)
    (slope,) = torch.autograd.grad(with_error, logit)
    assert slope[0, 0] < 0 < slope[0, 2]
    last = math.exp(b) / (math.exp(a) + math.exp(b))
    for ranked, expected in (([[1, 1, 0]], -math.log(last) / 2), ([[0, 0, 1]], 0.0), ([[0, 0, 0]], 0.0)):
        loss = rank_loss(logit, torch.tensor([ranked]), 2.0)
        assert loss.item() == pytest.approx(expected, abs=1e-5)
        assert torch.autograd.grad(loss, logit)[0].isfinite().all()


def test_steps_are_ranked_up_to_the_first_error(inputs: InputBuilder, trees: list[list[LabelledPath]]) -> None:
    rows = [labelled_row(tree, inputs, LossConfig(ranks=1.0), {}) for tree in trees]
    for row, tree in zip(rows, trees, strict=True):
        learnt = [labels for labels in ([la for la in p.labels if la.target is not None] for p in tree) if labels]
        wrong = [[is_wrong(label, None) for label in labels] for labels in learnt]
        ends = [of.index(True) if True in of else len(of) for of in wrong]
        assert [len(right) for right, _ in row.ranked] == [end for end in ends if end]
        assert [error >= 0 for _, error in row.ranked] == [
            True in of for of, end in zip(wrong, ends, strict=True) if end
        ]
        assert all(row.wrong[error] for _, error in row.ranked if error >= 0)
        assert not any(row.wrong[k] for right, _ in row.ranked for k in right)
    assert {error >= 0 for row in rows for _, error in row.ranked} == {True, False}


def test_a_pair_is_the_farther_apart_the_less_it_costs() -> None:
    """A Bradley-Terry loss: the better one goes up, the worse one goes down."""
    logit = torch.tensor([[0.5, -1.0, 2.0]], requires_grad=True)
    loss = pairwise_loss(logit, torch.tensor([[0, 0, 1], [0, 1, 2]]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1.5)) + math.log(1 + math.exp(3)), abs=1e-5)
    (slope,) = torch.autograd.grad(loss, logit)
    assert slope[0, 0] < 0 < slope[0, 2]
    paths = torch.tensor([[[1, 1, 0], [0, 1, 1], [0, 0, 0]]])
    assert candidate_means(logit, paths).tolist() == [[-0.25, 0.5, 0.0]]


@pytest.mark.parametrize("name", ["siblings", "candidates"])
def test_pairs_are_learnt_in_the_right_direction(
    inputs: InputBuilder, trees: list[list[LabelledPath]], name: str
) -> None:
    """Wrong steps are separated from right ones after the same prefix, and wrong solutions from right ones."""
    config = LossConfig(steps=0.0, **{name: 1.0})  # type: ignore[arg-type]
    rows = [labelled_row(tree, inputs, config, {}) for tree in trees]
    assert any(getattr(row, name) for row in rows)
    for row, tree in zip(rows, trees, strict=True):
        assert all(row.wrong[worse] and not row.wrong[better] for better, worse in row.siblings)
        assert all(tree[better].right and tree[worse].right is False for better, worse in row.candidates)
        batch = batch_rows([row], inputs)
        said = torch.zeros(*batch["labels"].shape, 3)
        worse_steps = {worse for _, worse in row.siblings} | {
            k for _, worse in row.candidates for k in set(row.paths[worse]) - set().union(*right_steps(row, tree))
        }
        said[..., 0] = 1.0
        said[0, list(worse_steps), 0] = -1.0
        found, inverse = (
            float(training_loss(StepOutput(logits=x), batch, batch["totals"], config)) for x in (said, -said)
        )
        assert found < inverse or not getattr(row, name)


def right_steps(row: LabelledRow, tree: list[LabelledPath]) -> list[set[int]]:
    return [set(steps) for steps, path in zip(row.paths, tree, strict=True) if path.right]


@pytest.fixture(scope="module")
def trees(dataset: Path) -> list[list[LabelledPath]]:
    """Trees, some with a zoom."""
    trees = load_trees(dataset, RowsConfig())
    assert any(step.region for tree in trees for path in tree for step in path.steps)
    return trees


def shortened(path: LabelledPath, by: int) -> LabelledPath:
    end = len(path.steps) - by
    return replace(path, steps=path.steps[:end], nodes=path.nodes[:end], labels=path.labels[:end])


def trained(folder: Path, head: str = "step", surprise: bool = False, loss: LossConfig = LossConfig()) -> Checkpoint:
    outputs = loss.extra_outputs
    checkpoint = load_reward_model(
        folder,
        new_head=head,
        reads_surprise=surprise,
        extra_outputs=outputs,
        reads_lookback=surprise,  # type: ignore[arg-type]
    )
    if head == "step":
        torch.manual_seed(1)
        torch.nn.init.normal_(checkpoint.model.score.weight, std=0.1)
    return checkpoint


def gradient(
    checkpoint: Checkpoint, parts: list[list[LabelledRow]], loss: LossConfig
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of a global batch that is processed in parts, on the model's device."""
    checkpoint.model.zero_grad()
    device = checkpoint.model.device
    batches = [{n: t.to(device) for n, t in batch_rows(part, checkpoint.inputs).items()} for part in parts]
    totals = torch.stack([batch["totals"] for batch in batches]).sum(0)
    total = 0.0
    for batch in batches:
        value = training_loss(checkpoint.model(**model_inputs(batch, NOT_INPUTS)), batch, totals, loss)
        value.backward()
        total += value.item()
    return total, {n: p.grad.clone().cpu() for n, p in checkpoint.model.named_parameters() if p.grad is not None}


def assert_same(
    found: tuple[float, dict[str, Tensor]], expected: tuple[float, dict[str, Tensor]], bound: float = 1e-5
) -> None:
    assert found[0] == pytest.approx(expected[0], abs=bound)
    assert set(found[1]) == set(expected[1])
    worst = max((float((found[1][n] - expected[1][n]).abs().max()), n) for n in expected[1])
    assert worst[0] < bound, worst


@pytest.mark.parametrize(
    "loss", [ALL, LossConfig(labels="counts", concentration="learned"), LossConfig(labels="hard", wrong_weight=2.0)]
)
def test_the_loss_is_the_same_however_a_batch_is_split(
    backbone: Path, trees: list[list[LabelledPath]], loss: LossConfig
) -> None:
    checkpoint, weights = trained(backbone, loss=loss), weights_of(trees, loss)
    rows = [labelled_row(tree[:3], checkpoint.inputs, loss, weights) for tree in trees[:6]]
    whole = gradient(checkpoint, [rows], loss)
    assert whole[0] > 0.1
    for parts in ([[r] for r in rows], [rows[:2], rows[2:]]):
        assert_same(gradient(checkpoint, parts, loss), whole)


@pytest.mark.parametrize("family", PACKED)
@pytest.mark.parametrize("head", ["step", "surprise", "verdict"])
def test_a_tree_in_one_sequence_has_the_loss_and_gradients_of_its_paths(
    tiny_backbone: Any, trees: list[list[LabelledPath]], family: str, head: str
) -> None:
    """Branches have uneven lengths and crops, and prompts have two images; in float32."""
    more = {"value": 0.5, "ranks": 0.5, "concentration": "learned"} if head == "surprise" else {}
    loss = LossConfig(error_kinds=head != "verdict", **more)  # type: ignore[arg-type]
    checkpoint = trained(tiny_backbone(family), "verdict" if head == "verdict" else "step", head == "surprise", loss)
    uneven = [[shortened(path, i % 2) for i, path in enumerate(tree)] for tree in trees[:5]]
    other = trees[1][0].problem.images
    uneven[0] = [replace(path, problem=replace(path.problem, images=path.problem.images + other)) for path in uneven[0]]
    paths = [[labelled_row([path], checkpoint.inputs, loss, {})] for tree in uneven for path in tree]
    whole = [[labelled_row(tree, checkpoint.inputs, loss, {}) for tree in uneven]]
    tokens = [sum(len(row.row.ids) for part in parts for row in part) for parts in (paths, whole)]
    assert tokens[1] < 0.7 * tokens[0]
    assert_same(gradient(checkpoint, whole, loss), gradient(checkpoint, paths, loss))


@pytest.mark.parametrize("head", ["step", "verdict"])
@pytest.mark.parametrize("template", ["plain@1", "tagged_steps@1"])
def test_critiques_of_a_tree_weigh_as_those_of_its_paths(
    tiny_backbone: Any, trees: list[list[LabelledPath]], head: str, template: str
) -> None:
    """The critique of a step occurs once, and counts for each solution that has the step."""
    checkpoint, loss = trained(tiny_backbone("qwen2_5_vl"), head), LossConfig(critique=0.7)
    checkpoint.inputs.config = replace(checkpoint.inputs.config, prompt_template=template)
    paths = [[labelled_row([path], checkpoint.inputs, loss, {})] for tree in trees[:4] for path in tree]
    whole = [[labelled_row(tree, checkpoint.inputs, loss, {}) for tree in trees[:4]]]
    assert max(weight for row in whole[0] for weight in row.taught) > 1
    assert sum(sum(row.taught) for row in whole[0]) == sum(len(row.taught) for (row,) in paths)
    assert_same(gradient(checkpoint, whole, loss), gradient(checkpoint, paths, loss))


def test_rows_of_one_solution_merged_have_the_loss_and_gradients_of_the_rows(
    backbone: Path, trees: list[list[LabelledPath]]
) -> None:
    """The rows are those of a dataset with one row per solution."""
    checkpoint, loss = trained(backbone), LossConfig(wrong_weight=2.0)
    weights = weights_of(trees, loss)
    rows = [[replace(path, nodes=tuple(range(len(path.steps))))] for path in trees[0]]
    paths = [[labelled_row(row, checkpoint.inputs, loss, weights)] for row in rows]
    whole = [[labelled_row(merged([*rows]), checkpoint.inputs, loss, weights)]]
    assert len(whole[0][0].targets) < sum(len(path.targets) for (path,) in paths)
    assert_same(gradient(checkpoint, whole, loss), gradient(checkpoint, paths, loss))


def test_a_verdict_over_the_vocabulary_teaches_it_to_answer(backbone: Path, trees: list[list[LabelledPath]]) -> None:
    """A loss over only the two verdicts does not teach the model to write a verdict at all."""
    checkpoint = trained(backbone, "verdict")
    row = [[labelled_row(trees[0], checkpoint.inputs, LossConfig(), {})]]
    two, whole = LossConfig(), LossConfig(vocabulary=True)
    assert gradient(checkpoint, row, whole)[0] > gradient(checkpoint, row, two)[0] + 1
    assert replace(two, vocabulary=True) == whole


def test_wrong_steps_weigh_more_on_top_of_the_balance(trees: list[list[LabelledPath]]) -> None:
    even = weights_of(trees, LossConfig(balance=True))
    assert weights_of(trees, LossConfig(balance=True, wrong_weight=3.0)) == {
        (kind, wrong): pytest.approx(weight * (3 if wrong else 1)) for (kind, wrong), weight in even.items()
    }


@pytest.mark.parametrize("labels", ["soft", "counts"])
def test_balance_gives_both_classes_of_a_question_type_the_same_weight(
    trees: list[list[LabelledPath]], labels: Literal["soft", "counts"]
) -> None:
    """Only steps with a loss count. Those without rollouts have none if the loss is that of counts."""
    weights = weights_of(trees, LossConfig(balance=True, labels=labels))
    totals: dict[tuple[str, bool], float] = {}
    for tree in trees:
        for path in tree:
            for label in path.labels:
                if label.target is not None and (labels == "soft" or label.mc_valid):
                    key = (f"{path.problem.meta['task']}/{path.problem.meta['question_type']}", label.target < 0.5)
                    totals[key] = totals.get(key, 0.0) + weights[key]
    both = [kind for kind, wrong in totals if wrong and (kind, False) in totals]
    assert both
    assert all(totals[kind, True] == pytest.approx(totals[kind, False]) for kind in both)
