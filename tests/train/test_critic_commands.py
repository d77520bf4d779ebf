"""A critic's rows are made by the command: kept critiques and pairs, with and without refinements of a policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.served_critic import FALSE, serve_critic
from tests.stand_in import StandIn
from train import critic_rows
from train.policy.critic_rows import steps_of
from train.policy.critic_rows_config import CriticRowsConfig
from vlprm.data.dataset import open_parquet, read_rows, row_paths, table_rows, write_dataset
from vlprm.runs.config import parse


def text_of(row: dict[str, Any], name: str) -> str:
    (turn,) = row[name]
    return "".join(part["text"] or "" for part in turn["content"])


@pytest.mark.parametrize("policy", [True, False])
@pytest.mark.parametrize("kind", ["pairs", "kept"])
def test_critiques_that_agree_with_the_labels_become_rows(
    kind: str, policy: bool, dataset: Path, backbone: Path, tmp_path: Path, server: StandIn
) -> None:
    """Four critiques of each step. With a policy, one that puts a false answer in a wrong step's place does not help,
    and the policy decides whether one helps from which it goes on."""
    few = tmp_path / "few.parquet"
    write_dataset(few, read_rows(dataset)[:3])
    trees = [list(row_paths(row)) for row in read_rows(few)]
    critic = serve_critic(server, backbone, tmp_path / "critic", (tree[0].problem for tree in trees))
    flags = ["--dataset", str(few), "--run", str(tmp_path / "run"), "--rows", kind, "--samples", "4"]
    model = "{checkpoint: builtin/policy, device: cpu}" if policy else "null"
    flags += ["--critic", critic, "--policy", model, "--solutions", "2", "--refinements", "2"]
    config = parse(CriticRowsConfig, ["--config", "demo/critic_pairs", *flags])
    critic_rows.main(config)
    steps = [step for tree in trees for step in steps_of(tree, config)]
    right, wrong = ([step for step in steps if step.right is is_right] for is_right in (True, False))
    assert right
    assert wrong
    counts = json.loads((tmp_path / "run/results.json").read_text())
    assert (counts["right_steps"], counts["wrong_steps"]) == (len(right), len(wrong))
    useless = counts["critiques_that_did_not_help"]
    assert len(wrong) <= useless <= 2 * len(wrong) if policy else useless == 0
    with open_parquet(tmp_path / "run" / f"{kind}.parquet") as file:
        rows = list(table_rows(file))
    if kind == "kept":
        assert len(rows) == counts["critiques_that_agree"] == len(right) + len(wrong) * 3 - useless
        assert any(FALSE in text_of(row, "completion") for row in rows) is not policy
    else:
        assert len(rows) == len(steps)
        assert sum(text_of(row, "chosen").startswith("right") for row in rows) == len(right)
        assert all("wrong" in text_of(row, "chosen") + text_of(row, "rejected") for row in rows)
