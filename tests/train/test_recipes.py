"""Every recipe of `train.prm` trains, with its own options, on a small dataset and a tiny backbone of its family."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import re
from pathlib import Path

import pytest
import torch
import transformers

from data_synth import fuse, judge, label
from data_synth.judges.config import JUDGEMENTS, JudgeConfig
from data_synth.labels.config import FuseConfig, LabelConfig
from data_synth.search.config import TreeSearchConfig
from data_synth.search.estimators import search
from data_synth.search.store import IMAGES, TREES, Searched, tree_record
from tests.conftest import solved
from tests.teacher import TeacherEngine
from tests.tiny_backbones import BACKBONES, QWEN_TOWER, mrope, qwen2_processor, write_qwen
from train import prm
from train.loop.batches import model_inputs
from train.reward.batches import NOT_INPUTS
from train.reward.config import LossConfig, PrmConfig, RowsConfig
from train.reward.losses import training_loss
from train.reward.planning import split_rows
from vlprm.data.dataset import read_rows, write_dataset
from vlprm.model.attention import Attention
from vlprm.model.loading import Checkpoint, part_of
from vlprm.model.reward_loading import load_reward_model
from vlprm.runs.config import parse
from vlprm.runs.folder import open_run
from vlprm.runs.journal import Records, finish, read_records
from vlprm.schema import Problem
from vlprm.scoring.tree import score_steps
from vlprm.tasks import TASKS

RECIPES = [
    path
    for path in sorted(Path("configs").glob("*/*.yaml"))
    if re.search(rf"-m train\.prm --config {path}\b", path.read_text())
]
STEPS = 3  # optimizer steps: warm-up leaves the first without effect, and a new head is all that the second moves

# Options that leave the loss of the first batch as it is: sizes; a further output, which the scores show; and what the
# rule of these labels or the kind of loss implies.
UNSEEN = {
    *("batch_tokens", "longest", "over_long", "max_paths_per_tree"),
    "concentration",
    *("threshold", "error_kinds", "after_first_error"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four datasets. `labels.parquet` has fused labels, with a judge's reasons, of a problem that is
    always solved and of two that are solved sometimes. `counts.parquet` has their labels by counts alone.
    `more.parquet` has one of these problems again, and another one. `steps.jsonl` is in TRL's format."""
    folder = tmp_path_factory.mktemp("recipes")
    open_run(folder / "trees", "", 0)
    records = Records(folder / "trees" / TREES)
    for at, (task, number) in enumerate((("chart", 3), ("chart", 2), ("count_grid", 1), ("chart", 1))):
        problem = TASKS[task].problem("train", number)
        tree = asyncio.run(search(problem, TeacherEngine(0.1), TreeSearchConfig(estimator="flat"), seed=1))
        records.append([tree_record(at, Searched(problem, tree), folder / "trees" / IMAGES)])
    finish(records)
    judge.main(JudgeConfig(folder / "trees", folder / "judge", error_rate=0.0))
    give_reasons(folder / "judge" / JUDGEMENTS)
    label.main(LabelConfig(folder / "trees", folder / "labels", (folder / "judge",), keep_unmixed=True))
    rows = read_rows(folder / "labels/dataset.parquet")
    write_dataset(folder / "labels.parquet", rows[:3])
    again = {**rows[0], "id": "again", "prompt": rows[0]["prompt"].replace(" ", "  ", 1)}
    write_dataset(folder / "more.parquet", [again, rows[3]])
    fuse.main(FuseConfig(folder / "labels.parquet", folder / "counts.parquet", "mc"))
    steps = {"prompt": "How many?", "completions": ["There are two.", "So 3."], "labels": [True, False]}
    (folder / "steps.jsonl").write_text(f"{json.dumps(steps)}\n" * 2)
    return folder


def give_reasons(judgements: Path) -> None:
    """The oracle speaks without words; a model has some for each step."""
    judged = list(read_records(judgements))
    for verdict in (verdict for record in judged for verdict in record["verdicts"] if verdict):
        verdict["reason"] = "It is so in the image."
    judgements.write_text("".join(json.dumps(record) + "\n" for record in judged))
    finish(Records(judgements))


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory, problems: list[Problem], backbone: Path) -> dict[str, Path]:
    """Tiny backbones by the owners of the real ones, with a single token for each verdict. Qwen2.5-VL has widths that
    4-bit kernels accept on a CPU."""
    texts = [f"{problem.question} Yes No + -" for problem in problems]
    qwen, internvl = (tmp_path_factory.mktemp(name) for name in ("qwen", "internvl"))
    BACKBONES["internvl"](internvl, texts)
    processor = qwen2_processor(transformers.Qwen2_5_VLProcessor, texts)
    text = {"hidden_size": 128, "intermediate_size": 256, "rope_parameters": mrope(8, 12, 12)}
    vision = {**QWEN_TOWER, "patch_size": 14, "out_hidden_size": 128, "fullatt_block_indexes": [1]}
    write_qwen(qwen, transformers.Qwen2_5_VLForConditionalGeneration, processor, text, vision)
    return {"Qwen": qwen, "OpenGVLab": internvl, "builtin": backbone, "runs": backbone}


def smaller(recipe: Path, data: Path, backbones: dict[str, Path], folder: Path) -> PrmConfig:
    """The config of a recipe, without what is not here: files, sizes, real backbones, and kernels of a GPU."""
    asked = parse(PrmConfig, ["--config", str(recipe)])
    names = {"mc.parquet": "counts.parquet", "steps.jsonl": "steps.jsonl"}
    return dataclasses.replace(
        asked,
        dataset=data / names.get(asked.dataset.name, "labels.parquet"),
        also={str(data / "more.parquet"): passes for passes in [*asked.also.values()][-1:]},
        run=folder / "run",
        backbone=str(backbones[asked.backbone.partition("/")[0]]),
        attention=Attention(),
        epochs=STEPS,
        accumulate=1,
        rows=dataclasses.replace(asked.rows, batch_tokens=16384, longest=16384),
        held_out=0.0,
        workers=0,
    )


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parent.stem}/{path.stem}")
def test_a_recipe_trains_the_parts_that_it_names(
    recipe: Path, data: Path, backbones: dict[str, Path], tmp_path: Path
) -> None:
    config = smaller(recipe, data, backbones, tmp_path)
    prm.main(config)
    logged = [json.loads(line) for line in (config.run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in logged if "loss" in line]
    assert len(losses) == STEPS
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    made, start = load_reward_model(config.run), prm.new_model(dataclasses.replace(config, bits=16))
    assert moved(made, start) == trained_parts(config)
    assert made.config == dataclasses.replace(
        start.config, aggregation=config.aggregation, provenance=made.config.provenance
    )
    problem = TASKS["chart"].problem("test", 0)
    (scores,) = score_steps(made, [(problem, solved(problem))])
    assert all(found is not None and 0 <= found.correct <= 1 for found in scores)
    same = first_loss(config, made)
    assert [name for name, without in options(config).items() if first_loss(without, made) == same] == []
    assert {found.value is not None for found in scores if found} == {"value" in config.loss.extra_outputs}


def moved(made: Checkpoint, start: Checkpoint) -> set[str]:
    """The parts of a model with a weight that differs from the start."""
    before, family = start.model.state_dict(), start.inputs.family
    changed = (name for name, weight in made.model.state_dict().items() if not torch.equal(weight, before[name]))
    return {part_of(name, family) or "head" for name in changed}


def trained_parts(config: PrmConfig) -> set[str]:
    """The parts that a recipe trains."""
    parts = {"text"} if config.lora_rank else {"vision", "projector", "text"} - {*config.freeze}
    return parts | ({"head"} if config.head == "step" and config.loss.reads_labels else set())


def options(config: PrmConfig) -> dict[str, PrmConfig]:
    """Each option of the rows and the loss, with the config without it."""
    found = {}
    for part, plain in (("rows", RowsConfig()), ("loss", LossConfig())):
        asked = getattr(config, part)
        for name in (field.name for field in dataclasses.fields(asked)):
            if name not in UNSEEN and getattr(asked, name) != getattr(plain, name):
                without = dataclasses.replace(asked, **{name: getattr(plain, name)})
                found[name] = dataclasses.replace(config, **{part: without})
    return found


def first_loss(config: PrmConfig, checkpoint: Checkpoint) -> float:
    """The loss of the first batch."""
    train, _ = split_rows(config, checkpoint.inputs)
    batch = train.collate([train[0]])
    with torch.no_grad():
        outputs = checkpoint.model(**model_inputs(batch, NOT_INPUTS))
        return float(training_loss(outputs, batch, batch["totals"], config.loss))
