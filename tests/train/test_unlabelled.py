"""Solutions without labels are left out and counted, wherever they would stand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.learnt import load_trees
from train import prm
from train.reward.config import LossConfig, PrmConfig, RowsConfig
from train.reward.planning import split_rows
from vlprm.model.inputs import InputBuilder

LABELLED, UNLABELLED = [True, False], [None, None]


def trl(path: Path, labels: Sequence[list[Any]], question: str = "Q{}?") -> Path:
    """A dataset in TRL's format with a question for each solution."""
    rows = [
        {"prompt": question.format(i), "completions": [f"one {i}", "two"], "labels": given}
        for i, given in enumerate(labels)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def measured(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_solution_without_labels_stops_no_training_and_is_counted(tmp_path: Path, backbone: Path) -> None:
    """Each row is a batch of its own, and one of the two unlabelled problems would be held out."""
    dataset = trl(tmp_path / "d.jsonl", [LABELLED, UNLABELLED, *[LABELLED] * 3, UNLABELLED, *[LABELLED] * 2])
    for seed in (0, 1):
        run = tmp_path / str(seed)
        config = PrmConfig(dataset, run, str(backbone), rows=RowsConfig(batch_tokens=16), held_out=0.4, seed=seed)
        prm.main(config)
        assert measured(run)[0]["solutions_without_labels"] == 2
        assert all(line["eval_loss"] > 0.1 for line in measured(run) if "eval_loss" in line)


def test_an_unlabelled_solution_takes_no_labelled_ones_place(tmp_path: Path, inputs: InputBuilder) -> None:
    dataset = trl(tmp_path / "d.jsonl", [UNLABELLED, UNLABELLED, LABELLED, LABELLED], "Q?")
    more = trl(tmp_path / "more.jsonl", [LABELLED, LABELLED])
    dataset.write_text(dataset.read_text() + more.read_text())
    config = PrmConfig(dataset, tmp_path, rows=RowsConfig(max_paths_per_tree=2), held_out=0.3)
    batches = [part.examples(at) for part in split_rows(config, inputs) for at in range(len(part))]
    (tree,) = [tree for batch in batches for tree in batch if tree[0].problem.question == "Q?"]
    assert [[label.target for label in path.labels] for path in tree] == [[1.0, 0.0]] * 2


def test_what_is_learnt_of_a_solution_depends_on_the_loss(dataset: Path, tmp_path: Path, inputs: InputBuilder) -> None:
    """Outcomes are compared without labels of steps, and labels without rollouts are no counts."""
    unlabelled = trl(tmp_path / "none.jsonl", [UNLABELLED] * 3)
    labelled = trl(tmp_path / "all.jsonl", [[False, False]] * 3)
    known = PrmConfig(dataset, tmp_path, held_out=0.2, loss=LossConfig(labels="counts", candidates=1.0))
    assert sum(map(len, split_rows(known, inputs))) > 0
    for path, loss, fix in (
        (unlabelled, LossConfig(), "label some steps"),
        (labelled, LossConfig(labels="counts"), "use a dataset with counts, or loss.labels: soft"),
        (labelled, LossConfig(steps=0.0, critique=1.0), "set loss.critique: 0 and loss.steps: 1"),
    ):
        with pytest.raises(ValueError, match=rf"{path.name}: none of its \d+ solutions has .*; {fix}"):
            split_rows(replace(known, dataset=path, loss=loss), inputs)


def test_every_row_too_long_leaves_nothing_to_train_on(tmp_path: Path, inputs: InputBuilder) -> None:
    dataset = trl(tmp_path / "d.jsonl", [LABELLED] * 4)
    rows = RowsConfig(longest=1, over_long="drop")
    with pytest.raises(ValueError, match=r"all 3 rows are too long for rows.longest \(1\) or .*; raise"):
        split_rows(PrmConfig(dataset, tmp_path, rows=rows, held_out=0.3), inputs)
    assert len(load_trees(dataset, rows)) == 4
