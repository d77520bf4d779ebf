"""What a training config cannot ask for is said before a run is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from train import prm
from train.checks import check
from train.data import check_pairs
from train.losses import LossConfig
from train.prm import PrmConfig
from train.trees import RowsConfig, load_trees
from vlprm.config import parse


def test_pairs_that_are_not_there_are_refused(dataset: Path) -> None:
    trees = load_trees(dataset, RowsConfig())
    check_pairs(trees, LossConfig(siblings=1.0, candidates=1.0))
    chains = [tree[:1] for tree in trees]
    with pytest.raises(ValueError, match=r"right and wrong solutions, .* loss.candidates learns; set it to 0, or"):
        check_pairs(chains, LossConfig(candidates=1.0))
    with pytest.raises(ValueError, match=r"a right and a wrong step .* loss.siblings learns; set it to 0, or"):
        check_pairs(chains, LossConfig(siblings=1.0))


CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "pairs of paths": (
        {"rows": RowsConfig(of="paths"), "loss": LossConfig(siblings=1.0, candidates=1.0)},
        "which loss.siblings and loss.candidates would learn from; set rows.of: trees",
    ),
    "vocabulary of a step head": (
        {"loss": LossConfig(vocabulary=True)},
        "the loss has no bound; set loss.vocabulary: false, or head: verdict",
    ),
    "vocabulary and counts": (
        {"head": "verdict", "loss": LossConfig(vocabulary=True, labels="counts")},
        "set loss.vocabulary: false, or loss.labels to soft or hard",
    ),
    "verdicts of a step head": ({"verdicts": ("Yes", "No")}, "Yes and No have no effect; leave verdicts out"),
    "surprise of a verdict head": ({"head": "verdict", "surprise": True}, "set surprise: false, or head: step"),
    "frozen text with adapters": ({"lora_rank": 4, "freeze": ("text",)}, "take text out of freeze, or set lora_rank"),
    "few bits without adapters": ({"bits": 4}, "set lora_rank, or bits: 16"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_what_contradicts_itself_is_refused_before_a_run_is_opened(case: str, dataset: Path, tmp_path: Path) -> None:
    changes, message = CONTRADICTIONS[case]
    with pytest.raises(ValueError, match=message):
        prm.main(PrmConfig(dataset, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("recipe", sorted(Path("configs").glob("*/*.yaml")))
def test_no_recipe_contradicts_itself(recipe: Path) -> None:
    if "head: " in (text := recipe.read_text()) or "rows: " in text:
        check(parse(PrmConfig, ["--config", str(recipe)]))
