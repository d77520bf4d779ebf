"""Policies learn right solutions (sft) and pairs of next steps (dpo): what is learnt, the losses, and resuming."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.rollouts import BLUE, COUNT, READ, RED, ZOOM, grid_problem
from train import dpo, pairs, sft
from train.loop.batches import model_inputs
from train.loop.trainer import BatchTrainer
from train.policy.batches import NOT_INPUTS
from train.policy.config import DpoConfig, PairsConfig, SftConfig
from train.policy.losses import dpo_loss, sft_loss
from train.policy.model import load_packed_policy
from train.policy.pair_rows import pair_batch, pair_example, step_log_probabilities
from train.policy.pairs import Pair, PairTree
from train.policy.sft_rows import examples_of, sft_batch
from train.policy.solutions import Taught, TaughtProblem, taught_problems
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import Checkpoint, load_inputs, load_policy
from vlprm.model.packing import padded_batches
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.runs.journal import Records, finish
from vlprm.schema import Solution, Step, to_json

Trained = tuple[Any, Any]  # a command and its config


@pytest.fixture(scope="module")
def mrope(tiny_backbone: Callable[[str], Path]) -> Checkpoint:
    return load_packed_policy(str(tiny_backbone("qwen2_5_vl")))


def learnt(taught: Taught, inputs: InputBuilder) -> str:
    batch = sft_batch([TaughtProblem(grid_problem(), (taught,))], inputs)
    return str(inputs.tokenizer.decode(batch["input_ids"][0][batch["chosen"][0]]))


@pytest.fixture(scope="module")
def labelled_pairs(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    pairs.main(PairsConfig(dataset, folder, better=0.5))
    return folder / "pairs.parquet"


# --- sft


def test_a_policy_learns_what_is_right_and_not_what_is_wrong_or_shown(tiny_backbone: Callable[[str], Path]) -> None:
    inputs = load_inputs(tiny_backbone("qwen3_vl"))
    steps = (ZOOM, READ, COUNT, RED)
    whole = learnt(Taught(steps, (True,) * 4), inputs)
    rest = "\n\n".join(step.text for step in steps[1:])
    assert whole == f"{ZOOM.text}<|im_end|>{rest}<|im_end|>"
    # The break after a wrong step would teach that it was right.
    assert (
        learnt(Taught(steps, (True, True, False, True)), inputs)
        == f"{ZOOM.text}<|im_end|>{READ.text}{RED.text}<|im_end|>"
    )
    assert learnt(Taught(steps, (False, True, True, True)), inputs) == f"{rest}<|im_end|>"
    assert learnt(Taught(steps, (True, True, True, False)), inputs).endswith(COUNT.text)


def test_right_solutions_of_a_tree_are_learnt_as_each_alone(mrope: Checkpoint) -> None:
    """A step that is wrong in one of them has no gradient."""
    solutions = (Taught((READ, COUNT, RED), (True,) * 3), Taught((READ, ZOOM, RED), (True, False, True)))

    def gradient(*examples: TaughtProblem) -> torch.Tensor:
        batch = sft_batch(examples, mrope.inputs)
        seen = model_inputs(batch, NOT_INPUTS)
        loss, _ = sft_loss(mrope.model(**seen).log_p, batch, batch["totals"])
        (found,) = torch.autograd.grad(loss, [mrope.model.lm_head.weight])
        return found

    problem = grid_problem()
    together = gradient(TaughtProblem(problem, solutions))
    apart = gradient(*(TaughtProblem(problem, (one,)) for one in solutions))
    assert torch.allclose(together, apart, atol=1e-5 * float(apart.abs().max()))


def test_sources_of_right_solutions(dataset: Path, tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    labelled = taught_problems(SftConfig(tmp_path, dataset=dataset, per_problem=2), counts)
    assert all(1 <= len(one.solutions) <= 2 for one in labelled)
    assert counts["solutions_not_right"] > 0
    solved = taught_problems(SftConfig(tmp_path, solved=4, tasks=("fine_print",)), counts)
    assert len({one.problem.id for one in solved}) == 4
    assert any(step.region for one in solved for step in one.solutions[0].steps)
    for config in (SftConfig(tmp_path), SftConfig(tmp_path, solved=4, dataset=dataset)):
        with pytest.raises(ValueError, match="give one of dataset, pool and solved to learn from, not"):
            taught_problems(config, counts)


def test_a_pools_right_candidates_are_learnt(tmp_path: Path) -> None:
    problem = grid_problem()
    right, wrong = (
        Solution(problem.id, (RED,), problem.answer, "answer", 3),
        Solution(problem.id, (BLUE,), "99", "answer", 3),
    )
    cut = Solution(problem.id, (READ,), None, "length", 3)
    candidates = [{"solution": to_json(one)} for one in (right, wrong, cut)]
    record = {"key": "k", "at": 0, "problem": problem.id, "method": "pool", "candidates": candidates}
    records = Records(tmp_path / "records.jsonl")
    records.append([record])
    finish(records)
    counts: Counter[str] = Counter()
    (found,) = taught_problems(SftConfig(tmp_path / "run", pool=tmp_path), counts)
    assert found.solutions == (Taught((RED,), (True,)),)
    assert counts["solutions_not_right"] == 2


# --- dpo

TREE = PairTree(
    grid_problem(), (ZOOM, READ, COUNT, RED, BLUE), (-1, 0, 0, 1, 1), (Pair(1, 2, 1.0, 0.0), Pair(3, 4, 0.9, 0.0))
)


def alone(checkpoint: Checkpoint, steps: list[Step]) -> torch.Tensor:
    """The log-probability of the last of the steps, by the backbone's own forward on one path."""
    inputs = checkpoint.inputs
    row = inputs.row(grid_problem(), steps)
    log_p = checkpoint.model(**inputs.batch([row])).logits[0].float().log_softmax(-1)
    places = [k for k, of in enumerate(row.written_in) if of == len(steps) - 1 and row.ids[k] != inputs.end_of_turn]
    return log_p[torch.tensor(places) - 1, torch.tensor(row.ids)[places]].sum()


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl", "qwen3_5"])
def test_the_loss_of_packed_pairs_is_dpos_on_their_two_paths(tiny_backbone: Callable[[str], Path], family: str) -> None:
    """The last family cannot read branches: each compared step has a row of its own."""
    checkpoint = load_packed_policy(str(tiny_backbone(family)))
    reference = tuple(-30.0 - k for k in range(4))
    example = dataclasses.replace(pair_example(TREE), reference=reference)
    batch = pair_batch([example], checkpoint.inputs)
    seen = model_inputs(batch, NOT_INPUTS)
    log_p = checkpoint.model(**seen).log_p
    loss, measures = dpo_loss(log_p, batch, batch["totals"], beta=0.3, nll=0.2)
    ways = {1: [ZOOM, READ], 2: [ZOOM, COUNT], 3: [ZOOM, READ, RED], 4: [ZOOM, READ, BLUE]}
    paths = {node: alone(checkpoint, steps) for node, steps in ways.items()}
    ratio = {node: paths[node] - reference[node - 1] for node in paths}
    expected = sum(-torch.nn.functional.logsigmoid(0.3 * (ratio[p.better] - ratio[p.worse])) for p in TREE.pairs) / 2
    length = {1: int(batch["lengths"][0]), 3: int(batch["lengths"][2])}
    expected = expected - 0.2 * sum(paths[node] / length[node] for node in (1, 3)) / 2
    assert loss.item() == pytest.approx(float(expected), rel=1e-5)
    assert measures["better_log_ratio"].item() == pytest.approx(float(ratio[1] + ratio[3]), rel=1e-4)
    assert measures["worse_log_ratio"].item() == pytest.approx(float(ratio[2] + ratio[4]), rel=1e-4)
    weight = [checkpoint.model.lm_head.weight]
    ours, theirs = (torch.autograd.grad(one, weight)[0] for one in (loss, expected))
    assert torch.allclose(ours, theirs, atol=1e-5 * float(theirs.abs().max()))


def test_the_loss_is_trls(mrope: Checkpoint) -> None:
    trl = pytest.importorskip("trl")
    chosen, rejected, ref_chosen, ref_rejected = torch.tensor([[-3.0], [-5.0], [-4.0], [-4.5]])
    batch = {
        "lengths": torch.tensor([1, 1]), "step": torch.tensor([0, 1]), "better": torch.tensor([0]),
        "worse": torch.tensor([1]), "reference": torch.cat([ref_chosen, ref_rejected]),
    }  # fmt: skip
    ours, _ = dpo_loss(torch.cat([chosen, rejected]), batch, torch.ones(1), beta=0.3, nll=0.0)
    trainer = trl.DPOTrainer.__new__(trl.DPOTrainer)
    if not hasattr(trainer, "dpo_loss"):
        pytest.skip("this version of TRL has no separate loss")
    trainer.beta, trainer.label_smoothing, trainer.loss_type = 0.3, 0.0, ["sigmoid"]
    theirs = trainer.dpo_loss(chosen, rejected, ref_chosen, ref_rejected)[0]
    assert ours.item() == pytest.approx(float(theirs.mean()), rel=1e-5)


def test_before_training_the_loss_is_log_two(mrope: Checkpoint) -> None:
    (reference,) = step_log_probabilities([pair_example(TREE)], mrope, 4096, bfloat16=False)
    batch = pair_batch([dataclasses.replace(pair_example(TREE), reference=reference)], mrope.inputs)
    seen = model_inputs(batch, NOT_INPUTS)
    with torch.no_grad():
        loss, measures = dpo_loss(mrope.model(**seen).log_p, batch, batch["totals"], beta=0.3, nll=0.0)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)
    assert measures["better_log_ratio"].item() == pytest.approx(0, abs=1e-4)


def test_the_reference_does_not_depend_on_batches(mrope: Checkpoint) -> None:
    few = dataclasses.replace(TREE, pairs=TREE.pairs[:1])
    examples = [pair_example(TREE), pair_example(few), pair_example(TREE)]
    together = step_log_probabilities(examples, mrope, 100_000, bfloat16=False)
    apart = [step_log_probabilities([one], mrope, 1, bfloat16=False)[0] for one in examples]
    assert [list(one) for one in together] == [pytest.approx(list(one), rel=1e-5) for one in apart]
    assert padded_batches([1, 1, 1], 100) == [[0, 1, 2]]


# --- training


def configs(name: str, folder: Path, policy: str, pairs: Path, **more: Any) -> Trained:
    common = {"policy": policy, "batch_tokens": 700, "checkpoint_every": 2, "learning_rate": 1e-3, **more}
    if name == "sft":
        return sft, SftConfig(folder, tasks=("count_grid", "chart"), solved=8, epochs=3, **common)
    return dpo, DpoConfig(pairs, folder, epochs=4, **common)


@pytest.mark.parametrize("name", ["sft", "dpo"])
def test_a_run_that_died_ends_with_the_weights_of_one_that_did_not(
    labelled_pairs: Path, tiny_backbone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The family stores its weights under other names."""
    policy = str(tiny_backbone("qwen2_5_vl"))
    command, whole = configs(name, tmp_path / "whole", policy, labelled_pairs)
    command.main(whole)
    real, steps = BatchTrainer.compute_loss, 0

    def dying(self: BatchTrainer, *args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise MemoryError
        return real(self, *args, **kwargs)

    died = dataclasses.replace(whole, run=tmp_path / "died")
    with monkeypatch.context() as patched:
        patched.setattr(BatchTrainer, "compute_loss", dying)
        with pytest.raises(MemoryError):
            command.main(died)
    assert [path.name for path in died.run.glob("checkpoint-*")] == ["checkpoint-2"]
    command.main(died)
    start, *ends = (load_policy(folder).model.state_dict() for folder in (policy, whole.run, died.run))
    assert any(not torch.equal(start[name], ends[0][name]) for name in start)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in start)
    logged = [json.loads(line) for line in (whole.run / "metrics.jsonl").read_text().splitlines()]
    assert "loss" in logged[1]
    if name == "dpo":
        assert logged[1]["loss"] == pytest.approx(math.log(2), abs=1e-4)
        assert {"better_log_ratio", "worse_log_ratio", "preferred"} <= logged[1].keys()
        assert logged[0]["pairs"] > 0


def test_adapters_are_merged_into_the_saved_policy(labelled_pairs: Path, tiny_backbone: Any, tmp_path: Path) -> None:
    policy = str(tiny_backbone("qwen3_vl"))
    command, config = configs("dpo", tmp_path / "run", policy, labelled_pairs, lora_rank=4)
    command.main(config)
    before, after = (load_policy(folder).model.state_dict() for folder in (policy, config.run))
    assert set(before) == set(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("language_model.layers" in name for name in changed)


def test_a_reward_model_is_no_policy(labelled_pairs: Path, tmp_path: Path, backbone: Path) -> None:
    checkpoint = load_reward_model(backbone, new_head="step")
    save_reward_model(checkpoint, tmp_path / "prm", checkpoint.config)
    command, config = configs("dpo", tmp_path / "run", str(tmp_path / "prm"), labelled_pairs)
    with pytest.raises(ValueError, match="is a reward model with a step head; give a policy"):
        command.main(config)


def test_a_policy_without_a_chat_template_is_refused(labelled_pairs: Path, tmp_path: Path, backbone: Path) -> None:
    shutil.copytree(backbone, tmp_path / "policy", ignore=shutil.ignore_patterns("*.jinja"))
    command, config = configs("dpo", tmp_path / "run", str(tmp_path / "policy"), labelled_pairs)
    with pytest.raises(ValueError, match=r"policy has no chat template; add its chat_template\.jinja"):
        command.main(config)


def test_a_loss_that_is_no_number_stops_the_run(
    labelled_pairs: Path, tiny_backbone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, config = configs("dpo", tmp_path / "run", str(tiny_backbone("qwen3_vl")), labelled_pairs)
    unknown = lambda examples, *_: [(math.nan,) * len(one.compared) for one in examples]  # noqa: E731
    monkeypatch.setattr("train.dpo.step_log_probabilities", unknown)
    with pytest.raises(ValueError, match=r"the loss is nan in the batch of .*; check its rows"):
        command.main(config)


def test_a_backbone_that_cannot_branch_learns_one_solution_a_row(tiny_backbone: Any) -> None:
    inputs = load_inputs(tiny_backbone("qwen3_5"))
    two = TaughtProblem(grid_problem(), (Taught((READ, RED), (True, True)), Taught((COUNT, RED), (True, True))))
    assert len(examples_of([two], inputs)) == 2
