"""The recipes named after papers have the papers' values; where one differs, its comment gives theirs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from train.reward.config import PrmConfig
from vlprm.runs.config import parse

VL_PRM = {  # the released checkpoints' training arguments
    "head": "verdict", "verdicts": ("+", "-"), "freeze": ("vision",), "loss.labels": "hard", "loss.vocabulary": True,
    "loss.error_kinds": False, "epochs": 2, "learning_rate": 1e-5, "schedule": "cosine", "warmup": 0.05,
    "weight_decay": 1e-4, "beta2": 0.95, "seed": 100, "bfloat16": True, "checkpointing": True,
    "min_pixels": 256 * 28 * 28, "max_pixels": 1280 * 28 * 28, "aggregation": "mean",
}  # fmt: skip
PAPERS: dict[str, dict[str, Any]] = {
    "vl_prm": VL_PRM,
    "mm_prm": {
        "head": "verdict", "verdicts": ("Yes", "No"), "freeze": ("vision",), "loss.labels": "soft",
        "loss.vocabulary": False, "rows.after_first_error": "stop", "loss.threshold": 0.0, "epochs": 3,
        "learning_rate": 4e-6, "schedule": "cosine", "warmup": 0.03, "weight_decay": 0.05, "rows.longest": 8192,
        "aggregation": "mean_odds",
    },
    "visual_prm": {
        "head": "verdict", "verdicts": ("+", "-"), "loss.labels": "hard", "loss.threshold": 0.0,
        "loss.vocabulary": True, "rows.after_first_error": "keep", "epochs": 1, "learning_rate": 1e-5,
        "schedule": "cosine", "warmup": 0.05, "weight_decay": 0.05, "beta2": 0.999, "aggregation": "mean",
    },
    "gm_prm_critic": {"backbone": "Qwen/Qwen2.5-VL-7B-Instruct", "head": "verdict", "aggregation": "mean"},
}  # fmt: skip
# Where a recipe differs, or has no field: what its comment says of the paper.
DIFFERENCES: dict[str, tuple[str, ...]] = {
    "vl_prm": ("64 solutions per optimizer step", "flash-attn", "in a turn of the same chat"),
    "mm_prm": ("InternVL2.5-8B", "512 solutions per optimizer step", "at most 6 tiles", "2e-6"),
    "visual_prm": ("InternVL2.5-8B", "0.9 and 0.999", "packs rows", "number of solutions per optimizer step"),
    "gm_prm_critic": ("GPT-4o's analyses", "one text about a whole solution", "not known to us"),
}  # fmt: skip
BORROWED = ("epochs", "learning_rate", "schedule", "warmup", "weight_decay", "beta2", "min_pixels", "max_pixels")


def values(recipe: str) -> dict[str, Any]:
    config = asdict(parse(PrmConfig, ["--config", f"configs/train/{recipe}.yaml"]))
    parts = {f"{part}.{name}": value for part in ("rows", "loss") for name, value in config[part].items()}
    return config | parts


@pytest.mark.parametrize("recipe", PAPERS)
def test_a_recipe_has_the_values_of_its_paper(recipe: str) -> None:
    found = values(recipe)
    assert {name: found[name] for name in PAPERS[recipe]} == PAPERS[recipe]
    lines = Path(f"configs/train/{recipe}.yaml").read_text().splitlines()
    comment = " ".join(line.removeprefix("# ") for line in lines if line.startswith("#"))
    assert [said for said in DIFFERENCES[recipe] if said not in comment] == []


def test_the_critic_has_the_values_that_it_says_it_borrows() -> None:
    assert {name: values("gm_prm_critic")[name] for name in BORROWED} == {name: VL_PRM[name] for name in BORROWED}
