"""Preference pairs of next steps: which are made, what is left out, and the files."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.train.rollouts import BLUE, COUNT, READ, RED, ZOOM, grid_problem
from train import pairs
from train.policy.config import PairsConfig
from train.policy.pairs import Pair, PairTree, pairs_of, read_pairs, write_pairs
from train.policy.trl_pairs import trl_rows
from vlprm.data.dataset import LabelledPath, table_rows
from vlprm.model.loading import load_inputs
from vlprm.schema import Problem, Step, StepLabel, Verdict

OTHER = Step("other", "red")


def label(right: int, valid: int = 4, judged: bool | None = None, target: float | None = None) -> StepLabel:
    verdict = None if judged is None else Verdict(judged, None if judged else "reasoning")
    return StepLabel(right, valid, valid, verdict, target)


def path(*steps: tuple[Step, int, StepLabel], right: bool | None) -> LabelledPath:
    """A solution of (step, node, label)."""
    words, nodes, labels = zip(*steps, strict=True)
    return LabelledPath(grid_problem(), words, nodes, labels, right)


def made(tree: Sequence[LabelledPath], **config: Any) -> tuple[PairTree | None, Counter[str]]:
    counts: Counter[str] = Counter()
    return pairs_of(tree, PairsConfig(Path("d"), Path("r"), **config), counts), counts


READ_, WRONG = Step("perception", "[perception] row"), Step("perception", "[perception] row 2")
TREE = [
    path((READ, 0, label(3)), (COUNT, 1, label(4)), (RED, 2, label(0, 0)), right=True),
    path((READ, 0, label(3)), (COUNT, 1, label(4)), (BLUE, 3, label(0, 0)), right=False),
    path((READ, 0, label(3)), (WRONG, 4, label(0)), (BLUE, 5, label(0, 0)), right=False),
    path((READ_, 6, label(2)), (RED, 7, label(0, 0)), right=None),
]


def test_the_best_next_step_is_paired_with_each_wrong_one() -> None:
    """Of a node with a wrong branch, and of the answers after its right branch, which need no rollouts."""
    tree, counts = made(TREE)
    assert tree is not None
    assert [step.text for step in tree.steps] == [s.text for s in (READ, COUNT, RED, BLUE, WRONG)]
    assert tree.parents == (-1, 0, 1, 1, 0)
    assert set(tree.pairs) == {Pair(1, 4, 1.0, 0.0), Pair(2, 3, 1.0, 0.0)}
    assert counts == {"nodes_with_pairs": 2, "pairs": 2, "nodes_without_a_certain_pair": 1}


def test_pairs_follow_verdicts_or_fused_labels() -> None:
    tree = [
        path((READ, 0, label(0, 0, judged=True, target=0.2)), right=True),
        path((COUNT, 1, label(4, judged=False, target=0.9)), right=False),
    ]
    judged, _ = made(tree, by="judge")
    fused, _ = made(tree, by="label", worse=0.3)
    valued, _ = made(tree)
    assert judged is not None and fused is not None and valued is not None  # noqa: PT018
    better = [one.steps[one.pairs[0].better].text for one in (judged, fused, valued)]
    assert better == [READ.text, COUNT.text, READ.text], "a last step's value is that of its answer"


@pytest.mark.parametrize("broken", [OTHER, Step("answer", "[answer] "), dataclasses.replace(ZOOM, region=None)])
def test_a_better_step_that_is_malformed_is_counted_and_left_out(broken: Step) -> None:
    tree = [path((broken, 0, label(4)), (RED, 1, label(0, 0)), right=True), path((BLUE, 2, label(0)), right=False)]
    assert made(tree) == (None, {"nodes_with_a_malformed_better_step": 1, "pairs": 0})
    second = path((READ, 3, label(3)), (RED, 4, label(0, 0)), right=True)
    found, _ = made([*tree, second])
    assert found is not None
    assert [found.steps[pair.better] for pair in found.pairs] == [READ]


def test_steps_without_tags_are_fine_where_none_has_one() -> None:
    other = Step("other", "blue")
    found, _ = made([path((OTHER, 0, label(4)), right=True), path((other, 1, label(0)), right=False)])
    assert found is not None


def test_too_few_rollouts_are_counted() -> None:
    tree = [
        path((READ, 0, label(1, 1)), (RED, 1, label(0, 0)), right=None),
        path((COUNT, 2, label(0)), (RED, 3, label(0, 0)), right=None),
    ]
    assert made(tree) == (None, {"nodes_without_two_values": 1, "pairs": 0})


def written(folder: Path, problem: Problem | None = None) -> Path:
    tree = PairTree(problem or grid_problem(), (ZOOM, READ, COUNT, RED), (-1, 0, 0, 2), (Pair(1, 2, 1.0, 0.0),))
    write_pairs(folder / "pairs.parquet", [tree])
    return folder / "pairs.parquet"


def test_pairs_are_read_as_they_were_written(tmp_path: Path) -> None:
    (tree,) = read_pairs(written(tmp_path))
    assert (tree.steps, tree.parents) == ((ZOOM, READ, COUNT, RED), (-1, 0, 0, 2))
    assert tree.pairs == (Pair(1, 2, 1.0, 0.0),)
    assert tree.problem.images == grid_problem().images
    assert (tree.problem.id, tree.problem.task) == (grid_problem().id, "count_grid")


def test_a_pair_with_different_prefixes_is_refused(tmp_path: Path) -> None:
    table = pq.read_table(written(tmp_path))
    wrong = [[{"better": 1, "worse": 3, "better_value": 1.0, "worse_value": 0.0}]]
    field = table.schema.get_field_index("pairs")
    pq.write_table(table.set_column(field, "pairs", pa.array(wrong, table["pairs"].type)), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="steps 1 and 3 are a pair, but do not follow the same step; make the file"):
        read_pairs(tmp_path / "other.parquet")
    pq.write_table(table.drop_columns(["pairs"]), tmp_path / "none.parquet")
    with pytest.raises(ValueError, match=r"lacks the columns pairs; make it with train\.pairs"):
        read_pairs(tmp_path / "none.parquet")


def test_the_command_makes_pairs_of_a_dataset_and_counts(dataset: Path, tmp_path: Path) -> None:
    config = PairsConfig(dataset, tmp_path / "run", better=0.5)
    pairs.main(config)
    trees = read_pairs(config.run / "pairs.parquet")
    results = json.loads((config.run / "results.json").read_text())
    assert results["pairs"] == sum(len(tree.pairs) for tree in trees) > 0
    assert results["trees_with_pairs"] == len(trees)
    assert results["trees_with_pairs"] + results.get("trees_without_pairs", 0) == 10
    for tree in trees:
        assert all(pair.better_value >= 0.5 and pair.worse_value == 0 for pair in tree.pairs)
    pairs.main(config)  # finished


def test_a_dataset_without_a_certain_pair_is_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no tree of .* has a certain pair of next steps \(.*10 trees without pairs"):
        pairs.main(PairsConfig(dataset, tmp_path / "run", by="judge"))


def test_rows_for_trl_continue_the_solution(backbone: Path, tmp_path: Path) -> None:
    """The prompt ends in the assistant's turn after its crop; both completions are one step."""
    steps = (ZOOM, READ, COUNT, RED)
    tree = PairTree(grid_problem(), steps, (-1, 0, 1, 1), (Pair(2, 3, 1.0, 0.0),))
    (row,) = trl_rows(tree, load_inputs(backbone))
    assert [message["role"] for message in row["prompt"]] == ["user", "assistant", "user", "assistant"]
    assert sum(part["type"] == "image" for message in row["prompt"] for part in message["content"]) == 2
    assert len(row["images"]) == 2
    assert row["prompt"][-1]["content"] == [{"type": "text", "text": READ.text + "\n\n"}]
    assert row["chosen"] == [{"role": "assistant", "content": [{"type": "text", "text": COUNT.text}]}]
    assert row["rejected"] == [{"role": "assistant", "content": [{"type": "text", "text": RED.text}]}]


def test_the_command_writes_rows_for_trl(dataset: Path, backbone: Path, tmp_path: Path) -> None:
    config = PairsConfig(dataset, tmp_path / "run", better=0.5, format="trl", policy=str(backbone))
    pairs.main(config)
    with pq.ParquetFile(config.run / "pairs.parquet") as file:
        rows = list(table_rows(file))
    assert len(rows) == json.loads((config.run / "results.json").read_text())["pairs"]
    assert set(rows[0]) == {"images", "prompt", "chosen", "rejected"}
    assert all(image["bytes"] for row in rows for image in row["images"])
