"""Training on two processes (gloo, CPU): the same as on one; and sharded, with batches that have images or not."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file
from torch.distributed.fsdp import fully_shard

from train.prm import make_trainer, new_model, split_rows
from train.reward.batches import batch_rows, model_inputs
from train.reward.config import LossConfig, PrmConfig, RowsConfig
from train.reward.data import labelled_row
from train.reward.losses import training_loss
from train.reward.trees import load_trees
from vlprm.data.dataset import LabelledPath
from vlprm.model.reward_loading import load_reward_model
from vlprm.schema import Step


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def trained(run: Path, dataset: Path, backbone: Path, processes: int, **more: Any) -> dict[str, torch.Tensor]:
    """The weights that the command leaves."""
    launch = [] if processes == 1 else ["-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
    config = run.with_suffix(".yaml")  # a file, since torchrun takes --run for an option of its own
    rows = {"batch_tokens": 700}
    given = {"dataset": dataset, "run": run, "backbone": backbone, "rows": rows, "freeze": [], "held_out": 0.2, **more}
    config.write_text(json.dumps(given, default=str))
    done = subprocess.run(
        [sys.executable, *launch, "-m", "train.prm", "--config", str(config)],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "MASTER_PORT": str(free_port())},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(run / "model.safetensors")


def held_out(run: Path) -> list[float]:
    """What was measured on held-out steps; once a checkpoint, by whatever number of processes."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    shown = [line for line in lines if "eval_step_auroc" in line]
    assert len({line["step"] for line in shown}) == len(shown) > 0
    return [line[name] for line in shown for name in sorted(line) if name.startswith(("eval_step_a", "eval_step_b"))]


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(expected)
    assert max(float((found[name] - expected[name]).abs().max()) for name in expected) < 1e-5


@pytest.mark.slow
def test_two_processes_and_two_accumulated_parts_give_the_same_weights(
    dataset: Path, backbone: Path, tmp_path: Path
) -> None:
    """And so does computing activations again in the backward pass."""
    one = trained(tmp_path / "one", dataset, backbone, 1, accumulate=2)
    assert_close(trained(tmp_path / "two", dataset, backbone, 2, accumulate=1), one)
    assert held_out(tmp_path / "two") == pytest.approx(held_out(tmp_path / "one"), abs=1e-4)
    assert_close(trained(tmp_path / "again", dataset, backbone, 1, accumulate=2, checkpointing=True), one)


def text_only(path: LabelledPath) -> LabelledPath:
    problem = replace(path.problem, images=())
    steps = tuple(Step(step.kind, step.text) for step in path.steps)
    return replace(path, problem=problem, steps=steps)


@pytest.mark.parametrize("family", ["qwen3_vl", "gemma3"])
def test_a_batch_without_images_is_given_one_that_no_step_sees(tiny_backbone: Any, dataset: Path, family: str) -> None:
    checkpoint = load_reward_model(tiny_backbone(family), new_head="step")
    torch.nn.init.normal_(checkpoint.model.score.weight, std=0.1)
    path = text_only(load_trees(dataset, RowsConfig())[0][0])
    row = labelled_row([path], checkpoint.inputs, LossConfig(), {})
    plain = checkpoint.model(**checkpoint.inputs.step_batch([row.row])).logits
    batch = model_inputs(batch_rows([row], checkpoint.inputs))
    assert "pixel_values" in batch
    assert torch.allclose(checkpoint.model(**batch).logits, plain, atol=1e-6)


def sharded(rank: int, port: int, folder: str, dataset: str) -> None:
    """One of two processes: shards the model, and trains a step on a batch that has images on the first alone. Its
    loss, and what both give the head, are those of the whole model."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    checkpoint = load_reward_model(folder, new_head="step")
    torch.manual_seed(1)
    torch.nn.init.normal_(checkpoint.model.score.weight, std=0.1)
    path = load_trees(Path(dataset), RowsConfig())[0][0]
    row = labelled_row([path if rank == 0 else text_only(path)], checkpoint.inputs, LossConfig(), {})
    batch = batch_rows([row], checkpoint.inputs)

    def loss() -> torch.Tensor:
        return training_loss(checkpoint.model(**model_inputs(batch)), batch, batch["totals"], LossConfig())

    whole = loss()
    (expected,) = torch.autograd.grad(whole, checkpoint.model.score.weight)
    dist.all_reduce(expected)
    for layer in [*checkpoint.model.model.language_model.layers, checkpoint.model.model.visual, checkpoint.model]:
        fully_shard(layer)
    parted = loss()
    parted.backward()
    assert torch.allclose(parted, whole, atol=1e-5)
    head = checkpoint.model.score.weight.grad.full_tensor()
    assert torch.allclose(head, expected / 2, atol=1e-5)  # the mean over devices
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.timeout(120)
def test_a_sharded_model_takes_batches_with_and_without_images(tiny_backbone: Any, dataset: Path) -> None:
    mp.spawn(sharded, (free_port(), str(tiny_backbone("qwen3_vl")), str(dataset)), nprocs=2)


def uncounted(path: LabelledPath) -> LabelledPath:
    return replace(path, labels=tuple(replace(label, mc_correct=0, mc_valid=0) for label in path.labels))


def test_a_loss_that_is_no_number_or_of_no_steps_stops_with_the_rows(
    dataset: Path, backbone: Path, tmp_path: Path
) -> None:
    config = PrmConfig(dataset, tmp_path, str(backbone), held_out=0.2, rows=RowsConfig(batch_tokens=700))
    checkpoint = new_model(config)
    checkpoint.model.score.weight.data.fill_(float("nan"))
    trainer = make_trainer(config, checkpoint, *split_rows(config, checkpoint.inputs))
    trainer.step_loss = LossConfig(labels="counts")
    for example in trainer.train_dataset.batches:
        example[:] = [[uncounted(path) for path in paths] for paths in example]
    trainer.train_dataset.loss = trainer.step_loss
    with pytest.raises(ValueError, match=r"no step of the batch of [\w@/]+.* has a label; give them counts, or learn"):
        trainer.train()
    trainer.step_loss = trainer.train_dataset.loss = LossConfig()
    with pytest.raises(ValueError, match=r"the loss is nan in the batch of [\w@/]+.*; look at its rows"):
        trainer.train()
