"""Datasets that the benchmarks train reward models on: by the demo's recipes, and the demo's own with other labels; and
the demo's critics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from data_synth.fuse import main as fuse
from data_synth.judge import main as judge
from data_synth.judges.config import JudgeConfig
from data_synth.label import main as label
from data_synth.labels.config import FuseConfig, LabelConfig
from data_synth.search.config import TreesConfig
from data_synth.search.store import TreeRun
from data_synth.trees import main as grow
from tests.perf.results import FOLDER
from train.prm import main as train
from train.reward.config import PrmConfig
from vlprm.data.dataset import iterate_rows, write_dataset
from vlprm.labels.fusion import Rule
from vlprm.runs.config import parse
from vlprm.tasks.scene import rng_for

DEMO = Path("runs/demo")
OF_DEMO = DEMO / "labels/dataset.parquet"


def labelled(folder: Path, *changes: str) -> Path:
    """Trees by the demo's recipe with changed flags, judged and labelled as in the demo."""
    trees, judged, labels = (folder / stage for stage in ("trees", "judgements", "labels"))
    grow(replace(parse(TreesConfig, ["--config", "configs/demo/trees.yaml", *changes]), run=trees))
    judge(replace(parse(JudgeConfig, ["--config", "configs/demo/judge.yaml"]), trees=trees, run=judged))
    config = parse(LabelConfig, ["--config", "configs/demo/label.yaml"])
    label(replace(config, trees=trees, judgements=(judged,), run=labels))
    return labels / "dataset.parquet"


def critic(recipe: str) -> Path:
    """The demo's critic of a recipe, which is trained unless it is there."""
    config = parse(PrmConfig, ["--config", f"configs/demo/{recipe}.yaml"])
    train(config)
    return config.run


def flat_trees() -> Path:
    """Trees with rollouts from each prefix, labelled, for as many problems as the tokens of the demo's trees pay."""
    folder = FOLDER / "datasets" / "flat"
    path = folder / "dataset.parquet"
    if not path.exists():
        every = labelled(folder, "--search.estimator", "flat")
        budget = sum(searched.tree.tokens for searched in TreeRun(DEMO / "trees"))
        trees = [searched.tree for searched in TreeRun(folder / "trees")]
        spent = accumulate(tree.tokens for tree in trees)
        paid = {tree.problem_id for tree, tokens in zip(trees, spent, strict=True) if tokens <= budget}
        write_dataset(path, (row for row in iterate_rows(every) if row["id"] in paid))
    return path


def labels_of(rule: Rule) -> Path:
    """The demo's dataset with labels by another rule, from the same rollouts and judgements."""
    path = FOLDER / "datasets" / rule / "dataset.parquet"
    if not path.exists():
        fuse(FuseConfig(OF_DEMO, path, rule))
    return path


def with_wrong_labels(of: Literal["steps", "answers"], share: float) -> Path:
    """The demo's dataset in which this share of the labels is turned round: those of answers (a solution's last step)
    or those of all other steps."""
    path = FOLDER / "datasets" / f"wrong_{of}_{share:g}" / "dataset.parquet"
    if not path.exists():
        write_dataset(path, (turned(row, of, share) for row in iterate_rows(OF_DEMO)))
    return path


def turned(row: dict[str, Any], of: str, share: float) -> dict[str, Any]:
    """The row with this share of the labels of `of` turned round, without their kinds of error."""
    last = {leaf["node"] for leaf in row["leaves"]}
    chance = rng_for("wrong labels", 0, row["id"], of)
    turn = [chance.random() < share and (node in last) == (of == "answers") for node in range(len(row["labels"]))]

    def new(name: str, value: Any) -> Iterator[Any]:
        for old, now in zip(row[name], turn, strict=True):
            yield value(old) if now else old

    return {
        **row,
        "labels": list(new("labels", lambda target: None if target is None else 1 - target)),
        "error_kinds": list(new("error_kinds", lambda kind: None)),
    }
