"""The commands that run a model, in process and small: the device they use, and that they load it only for work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from data_synth import trees
from data_synth.search.config import TreeSearchConfig
from eval import run as evaluation
from eval.runs.config import ProblemSetConfig, RunConfig
from vlprm.model import loading as backbones
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.model.loading import placement
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.policy.open import placed
from vlprm.published import load as published
from vlprm.search import SearchConfig as SolveSettings
from vlprm.serving.config import ModelConfig

Stage = Callable[..., None]  # runs a command with these changes of its config
STAGES = ("trees", "eval")
RECORDS = {"trees": "trees.jsonl", "eval": "records.jsonl"}


@pytest.fixture
def stages(backbone: Path, tmp_path: Path) -> dict[str, Stage]:
    """The stages by name."""
    save_reward_model(load_reward_model(backbone, new_head=True), tmp_path / "prm", CheckpointConfig(head="step"))
    search = TreeSearchConfig(root_rollouts=2, max_tokens=6)
    asked, settings = (ProblemSetConfig("chart", problems=3),), SolveSettings(n=2, max_tokens=6)

    def placed(folder: Path, device: str = "auto", dtype: str = "float32") -> ModelConfig:
        return ModelConfig(str(folder), device=device, dtype=dtype)

    def grow(unit: int = 125, **place: str) -> None:
        policy = placed(backbone, **place)
        trees.main(trees.TreesConfig(tmp_path / "trees", policy, problems=3, search=search, unit=unit))

    def evaluate(unit: int = 32, **place: str) -> None:
        models = placed(backbone, **place), placed(tmp_path / "prm", **place)
        config = RunConfig(tmp_path / "eval", models[0], asked, search=settings, reward_model=models[1], unit=unit)
        evaluation.main(config)

    return {"trees": grow, "eval": evaluate}


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The models that the stages loaded, in order."""
    models: list[Any] = []
    for module, name in ((backbones, "load_policy"), (published, "load_reward_model")):

        def load(*args: Any, real: Callable[..., Any] = getattr(module, name)) -> Any:
            checkpoint = real(*args)
            models.append(checkpoint.model)
            return checkpoint

        monkeypatch.setattr(module, name, load)
    return models


def test_a_stage_computes_where_and_in_what_it_is_told(
    stages: dict[str, Stage], loaded: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for name in STAGES:
        stages[name](dtype="bfloat16")
        kept = yaml.safe_load((tmp_path / name / "config.yaml").read_text())
        place = kept["policy"]["device"], kept["policy"]["dtype"]
        assert place == ("cpu", "bfloat16"), "auto would not say what was computed on"
    assert [(m.dtype, m.device.type) for m in loaded] == [(torch.bfloat16, "cpu")] * 3
    assert placed(ModelConfig("builtin/policy")).dtype == "float32"


def test_a_finished_stage_loads_no_model(stages: dict[str, Stage], loaded: list[Any], tmp_path: Path) -> None:
    for name in STAGES:
        stages[name](unit=2)
    assert len(loaded) == 3
    for name in STAGES:
        before = (tmp_path / name / RECORDS[name]).read_bytes()
        stages[name](unit=2)
        assert (tmp_path / name / RECORDS[name]).read_bytes() == before
    assert len(loaded) == 3
    records = (tmp_path / "trees" / "trees.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "trees" / "trees.jsonl").write_text("".join(records[:2]))
    stages["trees"](unit=2)
    assert len(loaded) == 4
    assert (tmp_path / "trees" / "trees.jsonl").read_text() == "".join(records)


@pytest.mark.parametrize("name", STAGES)
def test_what_a_machine_does_not_have_is_named_before_anything_is_written(
    stages: dict[str, Stage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match=r"no device 'cuda' on this machine; give auto or one of cpu$"):
        stages[name](device="cuda")
    with pytest.raises(ValueError, match=r"unknown dtype 'half'; give auto or one of float32, bfloat16$"):
        stages[name](dtype="half")
    assert not (tmp_path / name).exists()


def test_auto_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert placement("auto", "auto") == ("cuda", torch.bfloat16)
    assert placement("cpu", "auto") == ("cpu", torch.float32)
    assert placement("auto", "float32") == ("cuda", torch.float32)
    assert placement("cuda:1", "bfloat16") == ("cuda:1", torch.bfloat16)
    with pytest.raises(ValueError, match=r"no device 'cuda:2' .* cpu, cuda, cuda:0, cuda:1$"):
        placement("cuda:2", "float32")
