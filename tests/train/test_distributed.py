"""Two processes (gloo, CPU), each with the whole model or a shard, end with the weights of one, killed or not."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
from accelerate import PartialState
from safetensors.torch import load_file
from torch.distributed.fsdp import fully_shard

from tests.learnt import load_trees
from tests.train.two_processes import Stopped, in_two, one_thread, train_all, variables
from train import merge, prm
from train.loop.batches import model_inputs
from train.loop.progress import last_whole_checkpoint
from train.prm import make_trainer
from train.reward.batches import NOT_INPUTS, batch_rows
from train.reward.config import LossConfig, MergeConfig, PrmConfig, RowsConfig
from train.reward.data import labelled_row
from train.reward.losses import training_loss
from train.reward.model import new_model
from train.reward.planning import split_rows
from vlprm.data.dataset import LabelledPath
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.lora import holds_adapters, with_adapters
from vlprm.model.reward_loading import load_reward_model
from vlprm.runs.config import parse
from vlprm.runs.folder import seconds_of
from vlprm.schema import Step

# All heads, full training and adapters, tied and untied LM heads, with and without frozen parts.
CASES: dict[str, dict[str, Any]] = {
    "step": {"family": "qwen2_5_vl", "freeze": [], "checkpointing": True},
    "step, adapters": {"family": "qwen2_5_vl", "lora_rank": 4},
    "step, reads surprise, writes critiques": {"family": "tied", "surprise": True, "loss": {"critique": 0.5}},
    "verdict": {"family": "qwen3_vl", "head": "verdict", "freeze": []},
    "implicit": {"family": "qwen2_5_vl", "head": "implicit", "loss": {"labels": "outcome"}},
    "verdict, adapters": {"family": "tied", "head": "verdict", "lora_rank": 4, "checkpointing": True},
}
KILLED = ("step", "step, adapters", "verdict, adapters")  # after the third of six steps
KINDS = {kind: variables(kind) for kind in ("multi_gpu", "fsdp2")}


@pytest.fixture(scope="module")
def mixed(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset, with the images of some questions removed."""
    table = pq.read_table(dataset)
    zooms = [any("[zoom]" in step for step in steps) for steps in table["completions"].to_pylist()]
    images = [
        [] if i % 2 and not zoomed else images
        for i, (images, zoomed) in enumerate(zip(table["images"].to_pylist(), zooms, strict=True))
    ]
    assert {len(of_row) for of_row in images} == {0, 1}
    field = table.schema.get_field_index("images")
    path = tmp_path_factory.mktemp("mixed") / "mixed.parquet"
    pq.write_table(table.set_column(field, "images", pa.array(images, table["images"].type)), path)
    return path


@pytest.fixture(scope="module")
def config_of(
    mixed: Path, backbone: Path, tiny_backbone: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str, int], Path]:
    """The config file of a case, in a folder of its kind, next to the run."""
    folder = tmp_path_factory.mktemp("runs")

    def written(kind: str, case: str, accumulate: int) -> Path:
        path = folder / kind / f"{case}.yaml"
        path.parent.mkdir(exist_ok=True)
        family = CASES[case]["family"]
        config = {
            "dataset": str(mixed), "run": str(path.with_suffix("")), "rows": {"batch_tokens": 700}, "held_out": 0.2,
            "backbone": str(backbone if family == "tied" else tiny_backbone(family)), "checkpoint_every": 2,
            "epochs": 2, "accumulate": accumulate, "seed": 3, "learning_rate": 1e-4, "head_learning_rate": 1e-3,
            **CASES[case],
        }  # fmt: skip
        del config["family"]
        path.write_text(json.dumps(config))
        return path

    return written


@pytest.fixture(scope="module")
def alone(config_of: Callable[[str, str, int], Path]) -> Callable[[str], Path]:
    """The run of a case by one process, in parts."""

    @cache
    def run(case: str) -> Path:
        config = config_of("alone", case, 2)
        with one_thread():
            prm.main(parse(PrmConfig, ["--config", str(config)]))
        return config.with_suffix("")

    return run


@pytest.fixture(scope="module")
def together(config_of: Callable[[str, str, int], Path]) -> Callable[[str, str], Path]:
    """The runs of all cases by two processes. Some are killed while they write a checkpoint, and resumed by new
    processes."""
    jobs = [(environment, config_of(kind, case, 1)) for kind, environment in KINDS.items() for case in CASES]
    killed = [job for job in jobs if job[1].stem in KILLED]
    for _, config in killed:
        config.with_suffix(".stop").write_text("3")
    in_two(train_all, killed)
    for _, config in killed:
        config.with_suffix(".stop").unlink()
        run = config.with_suffix("")
        assert [path.name for path in run.glob("checkpoint-*")] == ["checkpoint-2"]
        if config.parent.name == "fsdp2":
            merge.main(MergeConfig(run / "checkpoint-2", config.with_suffix(".merged")))
        else:
            shutil.copytree(run / "checkpoint-2", config.with_suffix(".kept"))
        (run / "checkpoint-4").mkdir()
        (run / "checkpoint-4/model.safetensors").write_bytes(b"half of")
    in_two(train_all, jobs)
    return lambda kind, case: config_of(kind, case, 1).with_suffix("")


def weights(run: Path) -> dict[str, torch.Tensor]:
    (path,) = [path for name in ("model", "adapter_model") if (path := run / f"{name}.safetensors").exists()]
    return load_file(path)


def measured(run: Path) -> dict[int, list[float]]:
    """The held-out metrics by step: one line per step, for any number of processes."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    shown = [line for line in lines if "eval_step_auroc" in line]
    assert len({line["step"] for line in shown}) == len(shown) >= 3
    names = sorted(name for name in shown[0] if name.startswith(("eval_loss", "eval_step_")))
    return {line["step"]: [line[name] for name in names] for line in shown}


@pytest.mark.slow
@pytest.mark.timeout(900)  # the first waits for all
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_give_the_weights_of_one(
    together: Callable[[str, str], Path], alone: Callable[[str], Path], kind: str, case: str
) -> None:
    found, expected = weights(together(kind, case)), weights(alone(case))
    assert set(found) == set(expected)
    assert max(float((found[name] - expected[name]).abs().max()) for name in expected) < 1e-6
    for step, numbers in measured(alone(case)).items():
        assert measured(together(kind, case))[step] == pytest.approx(numbers, abs=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", KILLED)
def test_shards_in_the_middle_of_an_epoch_become_one_checkpoint(
    together: Callable[[str, str], Path], backbone: Path, tiny_backbone: Callable[[str], Path], case: str
) -> None:
    """It has the weights that the processes of a model that is whole in each wrote after as many steps."""
    kept, shards = together("multi_gpu", case).with_suffix(".kept"), together("fsdp2", case).with_suffix(".merged")
    head, family = CASES[case].get("head", "step"), CASES[case]["family"]
    start = backbone if family == "tied" else tiny_backbone(family)
    if holds_adapters(kept):
        whole = with_adapters(load_reward_model(start, new_head=head).model, kept)
    else:
        for file in start.iterdir():  # the processor, which the Trainer does not store in a checkpoint
            if not (kept / file.name).exists() and file.suffix != ".safetensors":
                shutil.copy(file, kept)
        CheckpointConfig(head=head).save(kept)
        whole = load_reward_model(kept).model
    merged = load_reward_model(shards)
    assert merged.config.provenance["optimizer_steps"] == 2
    expected, found = whole.state_dict(), merged.model.state_dict()
    assert set(found) == set(expected)
    assert max(float((found[name] - expected[name]).abs().max()) for name in expected) < 1e-6
    assert any("lora" not in name and "score" in name for name in found) == (head == "step")


def half_written(process: PartialState, folder: Path) -> None:
    """Both processes look for a checkpoint where two of three were left half written."""
    for i in range(20):
        run = folder / str(i)
        if process.is_main_process:
            state = "trainer_state.json"
            cut = [f"checkpoint-6/{state}", *(f"checkpoint-4/{k}.safetensors" for k in range(50))]
            for name in (f"checkpoint-2/{state}", *cut):
                (run / name).parent.mkdir(parents=True, exist_ok=True)
                (run / name).touch()
            (run / f"checkpoint-2/{state}").write_text("{}")
        process.wait_for_everyone()
        assert last_whole_checkpoint(run) == str(run / "checkpoint-2")
        assert [path.name for path in run.iterdir()] == ["checkpoint-2"]


@pytest.mark.timeout(300)
def test_one_process_removes_a_checkpoint_that_was_left_half_written(tmp_path: Path) -> None:
    in_two(half_written, tmp_path)


def a_second(process: PartialState, config: PrmConfig) -> None:
    """Training of one second, which the second process ends half a second later."""

    def stop(config: PrmConfig) -> None:
        time.sleep(1 + process.process_index / 2)
        raise Stopped

    prm.new_model = stop  # type: ignore[assignment]
    with pytest.raises(Stopped):
        prm.main(config)


@pytest.mark.timeout(300)
def test_the_seconds_of_processes_side_by_side_are_counted_once(dataset: Path, tmp_path: Path) -> None:
    in_two(a_second, PrmConfig(dataset, tmp_path))
    assert 1 <= seconds_of(tmp_path)["train"] < 1.5


def text_only(path: LabelledPath) -> LabelledPath:
    problem = replace(path.problem, images=())
    steps = tuple(Step(step.kind, step.text) for step in path.steps)
    return replace(path, problem=problem, steps=steps)


@pytest.mark.parametrize("family", ["qwen3_vl", "gemma3"])
def test_a_batch_without_images_is_given_one_that_no_step_sees(tiny_backbone: Any, dataset: Path, family: str) -> None:
    checkpoint = load_reward_model(tiny_backbone(family), new_head="step")
    torch.nn.init.normal_(checkpoint.model.score.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    path = text_only(load_trees(dataset, RowsConfig())[0][0])
    row = labelled_row([path], checkpoint.inputs, LossConfig(), {})
    plain = checkpoint.model(**checkpoint.inputs.step_batch([row.row])).logits
    batch = model_inputs(batch_rows([row], checkpoint.inputs), NOT_INPUTS)
    assert "pixel_values" in batch
    assert torch.allclose(checkpoint.model(**batch).logits, plain, atol=1e-6)


def sharded(process: PartialState, folder: str, dataset: str) -> None:
    """Shards the model, and trains a step on a batch that has images on the first process alone. Its loss, and what
    both give the head, are those of the whole model."""
    checkpoint = load_reward_model(folder, new_head="step")
    torch.manual_seed(1)
    torch.nn.init.normal_(checkpoint.model.score.weight, std=0.1)
    path = load_trees(Path(dataset), RowsConfig())[0][0]
    row = labelled_row([path if process.is_main_process else text_only(path)], checkpoint.inputs, LossConfig(), {})
    batch = batch_rows([row], checkpoint.inputs)

    def loss() -> torch.Tensor:
        return training_loss(checkpoint.model(**model_inputs(batch, NOT_INPUTS)), batch, batch["totals"], LossConfig())

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


@pytest.mark.timeout(300)
def test_a_sharded_model_takes_batches_with_and_without_images(tiny_backbone: Any, dataset: Path) -> None:
    in_two(sharded, str(tiny_backbone("qwen3_vl")), str(dataset))


def test_a_loss_that_is_no_number_stops_with_the_rows(dataset: Path, backbone: Path, tmp_path: Path) -> None:
    config = PrmConfig(dataset, tmp_path, str(backbone), held_out=0.2, rows=RowsConfig(batch_tokens=700))
    checkpoint = new_model(config)
    checkpoint.model.score.weight.data.fill_(float("nan"))
    trainer = make_trainer(config, checkpoint, *split_rows(config, checkpoint.inputs))
    with pytest.raises(ValueError, match=r"the loss is nan in the batch of [\w@/]+.*; check its rows"):
        trainer.train()
