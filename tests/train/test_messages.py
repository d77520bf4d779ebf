"""What a training run says of its data, its length and its prompt."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import yaml

from tests.train.test_unlabelled import LABELLED, measured, trl
from train import prm
from train.reward import advice
from train.reward.checks import check
from train.reward.config import PrmConfig, RowsConfig
from train.reward.planning import split_rows
from vlprm.model.checkpoint_config import load_checkpoint_config
from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import load_inputs


def test_one_problem_is_trained_on_without_held_out_ones(tmp_path: Path, backbone: Path) -> None:
    dataset = trl(tmp_path / "d.jsonl", [LABELLED] * 2, "Q?")
    config = PrmConfig(dataset, tmp_path / "run", str(backbone))
    with pytest.raises(ValueError, match=r"d\.jsonl: 1 problem.* leave none to train on; add .*with --held_out 0$"):
        prm.main(config)
    prm.main(PrmConfig(dataset, tmp_path / "all", str(backbone), held_out=0.0))
    assert "No metrics were measured." in (tmp_path / "all/README.md").read_text()
    curves = json.loads((tmp_path / "all/curves.json").read_text())
    assert len(curves["loss"]) == 1
    assert (curves["held_out"], curves["reliability"], curves["auroc"]) == ([], [], None)


def test_an_over_long_row_is_named_by_its_number(tmp_path: Path, inputs: InputBuilder) -> None:
    dataset = trl(tmp_path / "d.jsonl", [LABELLED] * 3)
    long = {"prompt": "Q0?", "completions": ["one " * 99], "labels": [True]}  # another solution of the first row
    more = {**long, "prompt": "Long?"}
    dataset.write_text(dataset.read_text() + "".join(json.dumps(row) + "\n" for row in (more, long)))
    config = PrmConfig(dataset, tmp_path, rows=RowsConfig(of="paths", longest=60), held_out=0.0)
    with pytest.raises(ValueError, match=r"^row [14] of .*d\.jsonl \(\w+\) and 1 more .* tokens; raise rows.longest"):
        split_rows(config, inputs)


def test_too_few_optimizer_steps_are_warned_of(
    tmp_path: Path, inputs: InputBuilder, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = trl(tmp_path / "d.jsonl", [LABELLED] * 60)
    split_rows(PrmConfig(dataset, tmp_path), inputs)
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said.startswith("training has only 1 optimizer steps; for at least 50, lower rows.batch_tokens (now 4096)")
    assert said.endswith("or accumulate (now 1), or raise epochs (now 1)")
    caplog.clear()
    split_rows(PrmConfig(dataset, tmp_path, rows=RowsConfig(batch_tokens=1)), inputs)
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]


def test_a_run_chooses_its_prompt_template_and_says_which_it_uses(
    tmp_path: Path, backbone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    dataset = trl(tmp_path / "d.jsonl", [LABELLED] * 6)
    with pytest.raises(ValueError, match="unknown prompt template 'plain'; give one of plain@1, tagged_steps@1"):
        check(PrmConfig(dataset, tmp_path, str(backbone), prompt_template="plain"))
    config = PrmConfig(dataset, tmp_path / "run", str(backbone), prompt_template="tagged_steps@1", held_out=0.3)
    prm.main(config)
    assert "questions are asked with the prompt template tagged_steps@1" in caplog.text
    assert "10 of 10 steps have no tag such as [reasoning], and the prompt template tagged_steps@1 asks" in caplog.text
    assert load_checkpoint_config(tmp_path / "run").prompt_template == "tagged_steps@1"
    assert load_checkpoint_config(backbone).prompt_template == "plain@1"
    assert load_inputs(tmp_path / "run").config.prompt_template == "tagged_steps@1"


def test_the_card_and_the_curves_say_what_was_measured_and_no_path(
    dataset: Path, backbone: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    prm.main(PrmConfig(dataset, run, str(backbone), rows=RowsConfig(batch_tokens=700), held_out=0.3))
    card = (run / "README.md").read_text()
    assert str(tmp_path) not in card
    assert str(backbone.parent) not in card
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "unknown"
    assert f"trained from {backbone.name} by" in card
    assert "per_second" not in card
    curves = json.loads((run / "curves.json").read_text())
    counts = curves["auroc"]
    assert f"{counts['steps']} steps ({counts['wrong']} wrong) of {counts['problems']} problems\n" in card
    assert sum(count for *_, count in curves["reliability"]) == counts["steps"] > 5
    assert curves["loss"] == [[line["step"], line["loss"]] for line in measured(run) if "loss" in line] != []
    assert curves["held_out"][-1][0] == curves["loss"][-1][0]


def test_the_log_says_at_which_targets_each_rule_calls_a_step_wrong(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    advice.on_wrong_steps(["bayes", "relative", "mc", "trl", "mm-prm"], None)
    advice.on_wrong_steps(["relative"], 0.3)
    assert [record.getMessage() for record in caplog.records] == [
        "a step with a label of mc, mm-prm is wrong if its target is 0, as these are Monte Carlo values",
        "a step with a label of bayes, trl is wrong if its target is below 0.5",
        "a step with a label of relative is wrong if its target is below 0.8",
        "a step is wrong if its target is at most 0.3 (loss.threshold)",
    ]
